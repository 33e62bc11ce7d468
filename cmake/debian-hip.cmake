# Toolchain file: AMD device code with nothing but Debian's packages, for machines without ROCm (CI, developers).
#     apt install clang-19 clang-tools-19 lld-19 llvm-19 rocm-device-libs libamdhip64-dev
#     cmake -B build/hip --toolchain cmake/debian-hip.cmake -DROCFORGE_GPU=hip ...
# Debian's clang-19 knows every architecture up to gfx1201; its ROCm 5.2.3 stops at gfx1036. The difference is one
# constant for each architecture, which is added here to a copy of the device libraries.

# Made once; the try-compile projects of CMake get the same folder.
list(APPEND CMAKE_TRY_COMPILE_PLATFORM_VARIABLES ROCFORGE_ROCM_ROOT)
if(NOT ROCFORGE_ROCM_ROOT)
  set(ROCFORGE_ROCM_ROOT ${CMAKE_BINARY_DIR}/rocm)
endif()

set(CMAKE_HIP_COMPILER clang++-19)
set(CMAKE_HIP_PLATFORM amd)  # hipconfig would say nvidia where nvcc is on PATH
set(CMAKE_HIP_COMPILER_ROCM_ROOT ${ROCFORGE_ROCM_ROOT})
set(CMAKE_HIP_FLAGS_INIT "--rocm-path=/usr --rocm-device-lib-path=${ROCFORGE_ROCM_ROOT}/bitcode")

if(EXISTS ${ROCFORGE_ROCM_ROOT}/lib/cmake/hip-lang/hip-lang-config.cmake)
  return()
endif()

set(debian_bitcode /usr/lib/x86_64-linux-gnu/amdgcn/bitcode)
if(NOT EXISTS ${debian_bitcode}/oclc_isa_version_90a.bc)
  message(FATAL_ERROR "${debian_bitcode} has no device libraries: apt install rocm-device-libs libamdhip64-dev llvm-19")
endif()
file(COPY ${debian_bitcode}/ DESTINATION ${ROCFORGE_ROCM_ROOT}/bitcode)
execute_process(COMMAND llvm-dis-19 -o - ${debian_bitcode}/oclc_isa_version_90a.bc
  OUTPUT_VARIABLE gfx90a COMMAND_ERROR_IS_FATAL ANY)
# gfx... : major * 1000 + minor * 100 + stepping
foreach(version 942:9402 1100:11000 1101:11001 1102:11002 1151:11501 1200:12000 1201:12001)
  string(REGEX MATCH "(.*):(.*)" version ${version})
  string(REPLACE "i32 9010" "i32 ${CMAKE_MATCH_2}" module "${gfx90a}")
  file(WRITE ${ROCFORGE_ROCM_ROOT}/isa_version.ll "${module}")
  execute_process(
    COMMAND llvm-as-19 -o ${ROCFORGE_ROCM_ROOT}/bitcode/oclc_isa_version_${CMAKE_MATCH_1}.bc ${ROCFORGE_ROCM_ROOT}/isa_version.ll
    COMMAND_ERROR_IS_FATAL ANY)
endforeach()

# Debian's own hip-lang package adds -isystem /usr/include, which breaks #include_next in <cmath>. Written last: it says
# that the folder is complete.
file(WRITE ${ROCFORGE_ROCM_ROOT}/lib/cmake/hip-lang/hip-lang-config.cmake [[
add_library(hip-lang::device INTERFACE IMPORTED)
target_link_libraries(hip-lang::device INTERFACE /usr/lib/x86_64-linux-gnu/libamdhip64.so)
set(_CMAKE_HIP_DEVICE_RUNTIME_TARGET hip-lang::device)
]])

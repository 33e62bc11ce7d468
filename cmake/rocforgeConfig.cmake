# find_package(rocforge): what the installed Python package rocforge_ops holds for C++ programs (docs/cpp.md).
#   rocforge::gguf   the reader of GGUF files, without torch: #include <rocforge/gguf.h>
#   rocforge::ops    the operators for LibTorch programs: #include <rocforge/ops.h>. Needs Torch, is not defined without.
cmake_path(SET rocforge_package NORMALIZE "${CMAKE_CURRENT_LIST_DIR}/../../..")

if(NOT TARGET rocforge::gguf)
  add_library(rocforge::gguf STATIC IMPORTED)
  set_target_properties(rocforge::gguf PROPERTIES
    IMPORTED_LOCATION "${rocforge_package}/lib/librocforge_gguf.a"
    INTERFACE_INCLUDE_DIRECTORIES "${rocforge_package}/include"
    INTERFACE_COMPILE_FEATURES cxx_std_20)
endif()

find_package(Torch QUIET)
if(Torch_FOUND AND NOT TARGET rocforge::ops)
  add_library(rocforge::ops SHARED IMPORTED)
  set_target_properties(rocforge::ops PROPERTIES
    IMPORTED_LOCATION "${rocforge_package}/librocforge_ops.so"
    INTERFACE_LINK_LIBRARIES "rocforge::gguf;${TORCH_LIBRARIES}"
    INTERFACE_COMPILE_OPTIONS "${TORCH_CXX_FLAGS}")
elseif(NOT Torch_FOUND AND NOT rocforge_FIND_QUIETLY)
  message(STATUS "rocforge: no Torch in CMAKE_PREFIX_PATH, so there is no rocforge::ops")
endif()

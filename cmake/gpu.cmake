# The GPU back end: one list of kernels, compiled as HIP (AMD), as CUDA (NVIDIA) or, for tests, by the host compiler.
set(ROCFORGE_GPU ${torch_gpu} CACHE STRING "GPU back end: hip, cuda, emulate (the kernels on the CPU, for tests) or none")
set_property(CACHE ROCFORGE_GPU PROPERTY STRINGS hip cuda emulate none)

set(rocforge_gpu_kernels
  csrc/hip/attention_backward_mask_kernel.hip
  csrc/hip/attention_backward_plain_kernel.hip
  csrc/hip/attention_backward_plan.hip
  csrc/hip/attention_backward_sums_kernel.hip
  csrc/hip/attention_backward_tiles_kernel.hip
  csrc/hip/attention_combine_kernel.hip
  csrc/hip/attention_orphans_kernel.hip
  csrc/hip/attention_plan.hip
  csrc/hip/attention_rows_kernel.hip
  csrc/hip/attention_tiles_kernel.hip
  csrc/hip/decode_rows_kernel.hip
  csrc/hip/linear_plain_kernel.hip
  csrc/hip/linear_plan.hip
  csrc/hip/linear_rows_kernel.hip
  csrc/hip/qkv_rope_cache_kernel.hip
  csrc/hip/rotary_embedding_kernel.hip)
set(rocforge_gpu_hosts
  csrc/hip/decode_rows.cpp
  csrc/hip/dequantize.cpp
  csrc/hip/embedding.cpp
  csrc/hip/grouped_linear.cpp
  csrc/hip/linear.cpp
  csrc/hip/mqa_attention.cpp
  csrc/hip/mqa_attention_backward.cpp
  csrc/hip/mqa_attention_q8_0.cpp
  csrc/hip/qkv_rope_cache.cpp
  csrc/hip/rotary_embedding.cpp)
# Kernels that must round as the CPU does: no fused multiply-add.
set(rocforge_exact_kernels
  csrc/hip/decode_rows_kernel.hip
  csrc/hip/qkv_rope_cache_kernel.hip
  csrc/hip/rotary_embedding_kernel.hip)
# Kernels compiled in several parts, each with its ROCFORGE_SHARD: compilers then work on them at once.
set(rocforge_sharded_kernels
  csrc/hip/attention_backward_tiles_kernel.hip
  csrc/hip/attention_tiles_kernel.hip
  csrc/hip/decode_rows_kernel.hip
  csrc/hip/linear_rows_kernel.hip)
set(rocforge_shards 8)

function(rocforge_missing_compiler language hint)
  message(FATAL_ERROR "This PyTorch (or ROCFORGE_GPU) asks for the ${ROCFORGE_GPU} back end, and there is no working ${language} "
    "compiler. ${hint} For a build without GPU kernels: CMAKE_ARGS=-DROCFORGE_GPU=none pip install .")
endfunction()

if(ROCFORGE_GPU STREQUAL hip)
  set(ROCFORGE_GPU_ARCHS "gfx90a;gfx942;gfx1030;gfx1100;gfx1201" CACHE STRING "AMD architectures to compile for")
  set(CMAKE_HIP_ARCHITECTURES ${ROCFORGE_GPU_ARCHS})
  set(CMAKE_HIP_STANDARD 17)
  include(CheckLanguage)
  check_language(HIP)
  if(NOT CMAKE_HIP_COMPILER)
    rocforge_missing_compiler(HIP "Install ROCm's hipcc or clang and set ROCM_PATH.")
  endif()
  enable_language(HIP)
  set(rocforge_gpu_language HIP)
  set(rocforge_exact_flags -ffp-contract=off)
elseif(ROCFORGE_GPU STREQUAL cuda)
  set(ROCFORGE_GPU_ARCHS "80-real;86-real;89-real;90a-real" CACHE STRING "CUDA architectures to compile for")
  if(ROCFORGE_GPU_ARCHS MATCHES "(^|;)90(-|;|$)")
    message(FATAL_ERROR "ROCFORGE_GPU_ARCHS=${ROCFORGE_GPU_ARCHS}: 90a is wanted in place of 90, which lacks its matrix instructions")
  endif()
  set(CMAKE_CUDA_ARCHITECTURES ${ROCFORGE_GPU_ARCHS})
  set(CMAKE_CUDA_STANDARD 17)
  include(CheckLanguage)
  check_language(CUDA)
  if(NOT CMAKE_CUDA_COMPILER)
    rocforge_missing_compiler(CUDA "Install the CUDA toolkit and put nvcc on PATH, or set CUDACXX.")
  endif()
  enable_language(CUDA)
  set(rocforge_gpu_language CUDA)
  set(rocforge_exact_flags -fmad=false)
  # Device code calls constexpr functions of the host, as clang lets it.
  add_compile_options($<$<COMPILE_LANGUAGE:CUDA>:--expt-relaxed-constexpr>)
elseif(NOT ROCFORGE_GPU MATCHES "^(emulate|none)$")
  message(FATAL_ERROR "ROCFORGE_GPU=${ROCFORGE_GPU}: hip, cuda, emulate or none")
endif()

# Makes object libraries <prefix>_<kernel>_<shard> of all kernels, compiled as `language`, and puts their names in `out`.
function(rocforge_kernel_objects prefix language exact_flags out)
  set(objects)
  foreach(source ${rocforge_gpu_kernels})
    set(last_shard 0)
    if(source IN_LIST rocforge_sharded_kernels)
      math(EXPR last_shard "${rocforge_shards} - 1")
    endif()
    cmake_path(GET source STEM name)
    foreach(shard RANGE ${last_shard})
      set(target ${prefix}_${name}_${shard})
      add_library(${target} OBJECT ${CMAKE_SOURCE_DIR}/${source})
      set_source_files_properties(${CMAKE_SOURCE_DIR}/${source} PROPERTIES LANGUAGE ${language})
      target_include_directories(${target} PRIVATE ${CMAKE_SOURCE_DIR}/csrc)
      if(source IN_LIST rocforge_sharded_kernels)
        target_compile_definitions(${target} PRIVATE ROCFORGE_SHARD=${shard} ROCFORGE_SHARDS=${rocforge_shards})
      endif()
      if(source IN_LIST rocforge_exact_kernels)
        target_compile_options(${target} PRIVATE ${exact_flags})
      endif()
      list(APPEND objects ${target})
    endforeach()
  endforeach()
  set(${out} ${objects} PARENT_SCOPE)
endfunction()

if(rocforge_gpu_language)
  rocforge_kernel_objects(rocforge ${rocforge_gpu_language} "${rocforge_exact_flags}" rocforge_kernel_targets)
endif()

# rocforge_cpu_kernels(source...): compiles each source once per instruction set of this processor family, with
# ROCFORGE_CPU_ISA naming the namespace its code goes into, and appends the objects to rocforge_cpu_objects.
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  set(rocforge_cpu_isas baseline v3 v4)
  set(rocforge_cpu_flags_v3 -march=x86-64-v3)
  set(rocforge_cpu_flags_v4 -march=x86-64-v4 -mprefer-vector-width=512)
else()
  set(rocforge_cpu_isas baseline)
endif()

function(rocforge_cpu_kernels)
  foreach(isa ${rocforge_cpu_isas})
    add_library(rocforge_cpu_${isa} OBJECT ${ARGN})
    target_include_directories(rocforge_cpu_${isa} PRIVATE csrc)
    target_compile_definitions(rocforge_cpu_${isa} PRIVATE ROCFORGE_CPU_ISA=${isa})
    # No contraction: a fused multiply-add would change the last bit of a decoded weight.
    target_compile_options(rocforge_cpu_${isa} PRIVATE -O3 -ffp-contract=off ${rocforge_cpu_flags_${isa}})
    list(APPEND rocforge_cpu_objects $<TARGET_OBJECTS:rocforge_cpu_${isa}>)
  endforeach()
  set(rocforge_cpu_objects ${rocforge_cpu_objects} PARENT_SCOPE)
endfunction()

# rocforge_cpu_kernels(name SOURCES source... FLAGS flag...): compiles the sources once per instruction set of this
# processor family, with ROCFORGE_CPU_ISA naming the namespace their code goes into, and appends the objects to
# rocforge_cpu_objects.
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  set(rocforge_cpu_isas baseline v3 v4)
  set(rocforge_cpu_flags_v3 -march=x86-64-v3)
  set(rocforge_cpu_flags_v4 -march=x86-64-v4 -mprefer-vector-width=512)
else()
  set(rocforge_cpu_isas baseline)
endif()

function(rocforge_cpu_kernels name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "" "SOURCES;FLAGS")
  foreach(isa ${rocforge_cpu_isas})
    set(target rocforge_cpu_${name}_${isa})
    add_library(${target} OBJECT ${arg_SOURCES})
    target_include_directories(${target} PRIVATE csrc)
    target_compile_definitions(${target} PRIVATE ROCFORGE_CPU_ISA=${isa})
    target_compile_options(${target} PRIVATE -O3 ${arg_FLAGS} ${rocforge_cpu_flags_${isa}})
    list(APPEND rocforge_cpu_objects $<TARGET_OBJECTS:${target}>)
  endforeach()
  set(rocforge_cpu_objects ${rocforge_cpu_objects} PARENT_SCOPE)
endfunction()

# The PyTorch that ${Python_EXECUTABLE} imports, asked for its own paths: rocforge_torch links it, torch_gpu says what it was built for.
find_package(Python 3.10 REQUIRED COMPONENTS Interpreter)
set(probe "
import torch
from torch.utils import cpp_extension as e
gpu = 'hip' if torch.version.hip else 'cuda' if torch.version.cuda else 'none'
join = '|'.join
print(torch.__version__, gpu, join(e.include_paths()), join(e.library_paths()), int(torch._C._GLIBCXX_USE_CXX11_ABI), sep='\\n')
")
# -I: the installed torch is seen even inside pip's build isolation.
execute_process(COMMAND ${Python_EXECUTABLE} -I -c "${probe}" OUTPUT_VARIABLE answer RESULT_VARIABLE failed
  ERROR_VARIABLE error OUTPUT_STRIP_TRAILING_WHITESPACE)
if(failed)
  message(FATAL_ERROR "${Python_EXECUTABLE} cannot import torch (2.11 or newer is needed):\n${error}")
endif()
string(REPLACE "\n" ";" answer "${answer}")
list(GET answer 0 torch_version)
list(GET answer 1 torch_gpu)
list(GET answer 2 torch_includes)
list(GET answer 3 torch_libraries)
list(GET answer 4 torch_cxx11_abi)
string(REPLACE "|" ";" torch_includes "${torch_includes}")
string(REPLACE "|" ";" torch_libraries "${torch_libraries}")
if(torch_version VERSION_LESS 2.11)
  message(FATAL_ERROR "PyTorch ${torch_version} is too old: 2.11 or newer is needed")
endif()
message(STATUS "PyTorch ${torch_version} (built for: ${torch_gpu})")

find_library(torch_cpu_library torch_cpu HINTS ${torch_libraries} REQUIRED NO_DEFAULT_PATH)
find_library(c10_library c10 HINTS ${torch_libraries} REQUIRED NO_DEFAULT_PATH)
add_library(rocforge_torch INTERFACE)
# C++ sources only: device compilers never see a torch header.
foreach(folder ${torch_includes})
  target_include_directories(rocforge_torch SYSTEM INTERFACE $<$<COMPILE_LANGUAGE:CXX>:${folder}>)
endforeach()
target_compile_definitions(rocforge_torch INTERFACE $<$<COMPILE_LANGUAGE:CXX>:_GLIBCXX_USE_CXX11_ABI=${torch_cxx11_abi}>)
target_link_libraries(rocforge_torch INTERFACE ${torch_cpu_library} ${c10_library})

# One C++ runtime in the process, PyTorch's. A compiler without libstdc++.so links libstdc++.a in silence, and a stream that
# two versions of the runtime share (any error message with a number) crashes.
set(cxx_runtime)
if(CMAKE_SYSTEM_NAME STREQUAL Linux AND CMAKE_CXX_COMPILER_ID MATCHES "GNU|Clang")
  foreach(name libstdc++.so libstdc++.so.6)
    execute_process(COMMAND ${CMAKE_CXX_COMPILER} -print-file-name=${name} OUTPUT_VARIABLE found_${name}
      OUTPUT_STRIP_TRAILING_WHITESPACE)
  endforeach()
  if(NOT EXISTS "${found_libstdc++.so}" AND EXISTS "${found_libstdc++.so.6}")
    set(cxx_runtime "${found_libstdc++.so.6}")
  endif()
endif()
target_link_libraries(rocforge_torch INTERFACE ${cxx_runtime})

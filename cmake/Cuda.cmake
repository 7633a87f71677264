# SPDX-License-Identifier: Apache-2.0
# The CUDA module: a shared library that the program opens when a GPU is asked for (src/support/cuda_module.hpp). The program itself
# links nothing of CUDA, so that it starts fast and runs anywhere.

find_library(TORCH_CUDA_LIBRARY torch_cuda PATHS ${LIBTORCH_DIR}/lib NO_DEFAULT_PATH)
find_library(C10_CUDA_LIBRARY c10_cuda PATHS ${LIBTORCH_DIR}/lib NO_DEFAULT_PATH)
_polysketch_need(TORCH_CUDA_LIBRARY "LibTorch's CUDA half")

# An nvcc that scripts/setup fetched counts if there is no other.
if(NOT CMAKE_CUDA_COMPILER AND NOT DEFINED ENV{CUDACXX})
  find_program(_nvcc nvcc HINTS ENV CUDA_HOME PATHS /usr/local/cuda ${LIBTORCH_DIR}/../nvidia/cu13 PATH_SUFFIXES bin)
  if(_nvcc)
    set(CMAKE_CUDA_COMPILER ${_nvcc})
  endif()
endif()
if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
  set(CMAKE_CUDA_ARCHITECTURES 90a)
endif()
set(CMAKE_CUDA_RUNTIME_LIBRARY Shared) # the one that LibTorch has loaded already
enable_language(CUDA)
if(CCACHE)
  set(CMAKE_CUDA_COMPILER_LAUNCHER ${CCACHE})
endif()

file(GLOB _cuda_sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/cuda/*.cpp ${CMAKE_SOURCE_DIR}/src/kernels/cuda/*.cu)
add_library(polysketch_cuda SHARED ${_cuda_sources})
target_include_directories(polysketch_cuda PRIVATE ${CMAKE_SOURCE_DIR}/src)
target_include_directories(polysketch_cuda SYSTEM PRIVATE ${LIBTORCH_DIR}/include ${LIBTORCH_DIR}/include/torch/csrc/api/include
  ${CMAKE_CUDA_TOOLKIT_INCLUDE_DIRECTORIES})
# NCCL's header only: libtorch_cuda brings the library, and it must be that one.
find_path(NCCL_INCLUDE nccl.h HINTS ${CMAKE_CUDA_TOOLKIT_INCLUDE_DIRECTORIES} ${LIBTORCH_DIR}/../nvidia/nccl/include)
_polysketch_need(NCCL_INCLUDE "nccl.h")
target_include_directories(polysketch_cuda SYSTEM PRIVATE ${NCCL_INCLUDE})
target_compile_definitions(polysketch_cuda PRIVATE USE_DISTRIBUTED USE_C10D_NCCL $<$<COMPILE_LANGUAGE:CXX>:_GLIBCXX_ASSERTIONS>)
target_compile_options(polysketch_cuda PRIVATE
  $<$<COMPILE_LANGUAGE:CXX>:-Wall;-Wextra;-Wshadow;-Werror;-fstack-protector-strong>
  $<$<COMPILE_LANGUAGE:CUDA>:-Xcompiler=-Wall,-Wextra;-Werror=all-warnings;--expt-relaxed-constexpr;-lineinfo>)
# torch_cuda registers its operations when it is loaded, so it must stay a dependency though little of it is named.
target_link_libraries(polysketch_cuda PRIVATE -Wl,--no-as-needed ${TORCH_CUDA_LIBRARY} ${C10_CUDA_LIBRARY} -Wl,--as-needed
  ${TORCH_CPU_LIBRARY} ${C10_LIBRARY})
target_link_options(polysketch_cuda PRIVATE -Wl,--allow-shlib-undefined -Wl,-z,relro,-z,now -Wl,--disable-new-dtags)
set_target_properties(polysketch_cuda PROPERTIES LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/lib BUILD_RPATH ${LIBTORCH_DIR}/lib
  INSTALL_RPATH "\$ORIGIN"
  CXX_VISIBILITY_PRESET hidden CUDA_VISIBILITY_PRESET hidden)

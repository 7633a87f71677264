# SPDX-License-Identifier: Apache-2.0
# Language, warnings, hardening, sanitizers, compiler cache: one interface library that every target of ours links.

set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_CUDA_STANDARD 17)  # CMake 3.25 knows nvcc only up to C++17, and the kernels need no more
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "" FORCE)
endif()

find_program(CCACHE ccache)
if(CCACHE)
  # Precompiled headers are cached only with these sloppiness settings, and shared between clones
  # only by a sum that is not of their content (polysketch_torch_headers).
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CMAKE_COMMAND} -E env CCACHE_PCH_EXTSUM=true
      CCACHE_SLOPPINESS=pch_defines,time_macros,include_file_mtime,include_file_ctime ${CCACHE})
endif()

add_library(polysketch_options INTERFACE)
target_include_directories(polysketch_options INTERFACE ${CMAKE_CURRENT_SOURCE_DIR}/src)
target_compile_options(polysketch_options INTERFACE -Wall -Wextra -Wshadow -Werror -fstack-protector-strong)
target_compile_definitions(polysketch_options INTERFACE _GLIBCXX_ASSERTIONS)
if(CMAKE_BUILD_TYPE STREQUAL "Release" AND NOT POLYSKETCH_SANITIZE)
  target_compile_definitions(polysketch_options INTERFACE _FORTIFY_SOURCE=2)
endif()
target_link_options(polysketch_options INTERFACE -pie -Wl,-z,relro,-z,now)
if(POLYSKETCH_SANITIZE)
  target_compile_options(polysketch_options INTERFACE -fsanitize=${POLYSKETCH_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer -g1)
  target_link_options(polysketch_options INTERFACE -fsanitize=${POLYSKETCH_SANITIZE})
endif()
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  # -Wrestrict misfires on std::string concatenation in GCC 12 (GCC bug 105651).
  target_compile_options(polysketch_options INTERFACE -fpch-preprocess -Wno-restrict)
endif()

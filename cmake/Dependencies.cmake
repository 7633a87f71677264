# SPDX-License-Identifier: Apache-2.0
# What scripts/setup put into place, as imported targets. Nothing is downloaded here.

set(_cache "$ENV{POLYSKETCH_CACHE}")
if(NOT _cache)
  if(DEFINED ENV{XDG_CACHE_HOME} AND NOT "$ENV{XDG_CACHE_HOME}" STREQUAL "")
    set(_cache "$ENV{XDG_CACHE_HOME}/polysketch")
  else()
    set(_cache "$ENV{HOME}/.cache/polysketch")
  endif()
endif()
set(POLYSKETCH_CACHE "${_cache}" CACHE PATH "where scripts/setup keeps the libraries it fetched")

find_package(Threads REQUIRED)

function(_polysketch_need condition what)
  if(NOT ${condition})
    message(FATAL_ERROR "${what} is missing: run scripts/setup first")
  endif()
endfunction()

# LibTorch's headers bring their own fmt 12, which would shadow the system's fmt 9 that spdlog is built with. A folder that holds
# nothing but a link to the system's fmt, first on the include path, keeps spdlog's headers and library together.
find_path(FMT_INCLUDE fmt/core.h PATHS /usr/include NO_DEFAULT_PATH)
_polysketch_need(FMT_INCLUDE "libfmt (headers)")
file(MAKE_DIRECTORY ${CMAKE_BINARY_DIR}/fmt-first)
if(NOT EXISTS ${CMAKE_BINARY_DIR}/fmt-first/fmt)
  file(CREATE_LINK ${FMT_INCLUDE}/fmt ${CMAKE_BINARY_DIR}/fmt-first/fmt SYMBOLIC)
endif()
find_package(spdlog REQUIRED)
add_library(polysketch_spdlog INTERFACE)
target_include_directories(polysketch_spdlog SYSTEM BEFORE INTERFACE ${CMAKE_BINARY_DIR}/fmt-first)
target_link_libraries(polysketch_spdlog INTERFACE spdlog::spdlog)

find_package(nlohmann_json REQUIRED)
add_library(polysketch_json INTERFACE)
target_link_libraries(polysketch_json INTERFACE nlohmann_json::nlohmann_json)

find_package(yaml-cpp REQUIRED)
add_library(polysketch_yaml INTERFACE)
target_link_libraries(polysketch_yaml INTERFACE yaml-cpp)

find_package(ZLIB REQUIRED)
add_library(polysketch_zlib INTERFACE)
target_link_libraries(polysketch_zlib INTERFACE ZLIB::ZLIB)

find_package(CLI11 REQUIRED)
add_library(polysketch_cli11 INTERFACE)
target_link_libraries(polysketch_cli11 INTERFACE CLI11::CLI11)

# Apache Arrow and Parquet from the pyarrow wheel (C++ only).
set(ARROW_ROOT ${POLYSKETCH_CACHE}/arrow-26.0.1/pyarrow CACHE PATH "unpacked pyarrow wheel")
find_library(ARROW_LIBRARY NAMES libarrow.so.2600 PATHS ${ARROW_ROOT} NO_DEFAULT_PATH)
find_library(PARQUET_LIBRARY NAMES libparquet.so.2600 PATHS ${ARROW_ROOT} NO_DEFAULT_PATH)
_polysketch_need(ARROW_LIBRARY "Apache Arrow")
_polysketch_need(PARQUET_LIBRARY "Apache Parquet")
add_library(polysketch_arrow INTERFACE)
target_include_directories(polysketch_arrow SYSTEM INTERFACE ${ARROW_ROOT}/include)
target_link_libraries(polysketch_arrow INTERFACE ${PARQUET_LIBRARY} ${ARROW_LIBRARY})

# SentencePiece 0.2.2, static, built by scripts/setup from its source archive with its own abseil and protobuf-lite.
set(SENTENCEPIECE_ROOT ${POLYSKETCH_CACHE}/sentencepiece-0.2.2 CACHE PATH "installed SentencePiece")
find_library(SENTENCEPIECE_LIBRARY sentencepiece PATHS ${SENTENCEPIECE_ROOT}/lib NO_DEFAULT_PATH)
find_library(SENTENCEPIECE_TRAIN_LIBRARY sentencepiece_train PATHS ${SENTENCEPIECE_ROOT}/lib NO_DEFAULT_PATH)
_polysketch_need(SENTENCEPIECE_LIBRARY "SentencePiece 0.2.2")
file(GLOB _absl_libraries ${SENTENCEPIECE_ROOT}/lib/libabsl_*.a)
add_library(polysketch_sentencepiece INTERFACE)
target_include_directories(polysketch_sentencepiece SYSTEM INTERFACE ${SENTENCEPIECE_ROOT}/include)
target_link_libraries(polysketch_sentencepiece INTERFACE ${SENTENCEPIECE_TRAIN_LIBRARY} ${SENTENCEPIECE_LIBRARY}
  -Wl,--start-group ${_absl_libraries} -Wl,--end-group)

if(POLYSKETCH_CORE_ONLY)
  return()
endif()

# LibTorch from the wheel: own targets instead of its TorchConfig.cmake, which would demand nvcc for every build and change global flags.
if(DEFINED ENV{LIBTORCH_DIR})
  set(_libtorch "$ENV{LIBTORCH_DIR}")
else()
  set(_libtorch ${POLYSKETCH_CACHE}/libtorch-2.11.0/torch)
endif()
set(LIBTORCH_DIR ${_libtorch} CACHE PATH "LibTorch: the folder with include/ and lib/")
find_library(TORCH_CPU_LIBRARY torch_cpu PATHS ${LIBTORCH_DIR}/lib NO_DEFAULT_PATH)
find_library(C10_LIBRARY c10 PATHS ${LIBTORCH_DIR}/lib NO_DEFAULT_PATH)
_polysketch_need(TORCH_CPU_LIBRARY "LibTorch 2.11")
file(STRINGS ${LIBTORCH_DIR}/include/torch/headeronly/version.h _torch_version REGEX "define TORCH_VERSION_(MAJOR|MINOR) ")
if(NOT _torch_version MATCHES "MAJOR 2.*MINOR 11")
  message(FATAL_ERROR "LibTorch in ${LIBTORCH_DIR} is not 2.11 (${_torch_version}): run scripts/setup or set LIBTORCH_DIR")
endif()
find_path(GLOO_INCLUDE gloo/algorithm.h)  # headers only; libtorch_cpu holds the code

add_library(polysketch_torch INTERFACE)
target_include_directories(polysketch_torch SYSTEM INTERFACE ${LIBTORCH_DIR}/include ${LIBTORCH_DIR}/include/torch/csrc/api/include)
target_compile_definitions(polysketch_torch INTERFACE USE_DISTRIBUTED USE_C10D_GLOO)
target_link_libraries(polysketch_torch INTERFACE ${TORCH_CPU_LIBRARY} ${C10_LIBRARY})
# at::parallel_for is a template that shares out work only in files compiled with OpenMP; without it our own kernels would run on one thread.
# Its run-time library is the one that LibTorch brings and uses, so that there is one pool of threads.
file(GLOB _gomp ${LIBTORCH_DIR}/lib/libgomp*.so*)
if(_gomp)
  list(GET _gomp 0 _gomp)
else()
  set(_gomp -fopenmp)
endif()
target_compile_options(polysketch_torch INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-fopenmp>)
target_link_libraries(polysketch_torch INTERFACE ${_gomp})
# libtorch_cpu's own needs (CUDA run time, CUPTI) are found through its RPATH at run time, not at link time.
target_link_options(polysketch_torch INTERFACE -Wl,--allow-shlib-undefined)

# LibTorch's tensor and autograd headers dominate the time of every file that includes them: they are compiled once for the libraries and once
# for the tests (whose code is compiled as part of an executable). No path of ours stands in the generated header, so clones share it in
# the compiler cache.
function(polysketch_torch_headers first)
  target_precompile_headers(${first} PRIVATE <ATen/ATen.h> <torch/csrc/autograd/custom_function.h> <torch/csrc/autograd/variable.h>)
  foreach(target ${ARGN})
    target_precompile_headers(${target} REUSE_FROM ${first})
  endforeach()
  # The compiled header holds the path of its folder, so that by its content no two clones would
  # share a compiler cache. ccache takes this sum instead: of what it is made from.
  file(SHA256 ${LIBTORCH_DIR}/include/torch/csrc/api/include/torch/version.h libtorch)
  string(SHA256 sum "${libtorch} ${CMAKE_CXX_COMPILER_ID} ${CMAKE_CXX_COMPILER_VERSION} ${CMAKE_BUILD_TYPE} ${CMAKE_CXX_FLAGS}")
  file(CONFIGURE OUTPUT ${CMAKE_BINARY_DIR}/CMakeFiles/${first}.dir/cmake_pch.hxx.gch.sum CONTENT ${sum})
endfunction()

# DT_RPATH rather than RUNPATH: it also serves the libraries that LibTorch loads in turn.
function(polysketch_executable target)
  target_link_options(${target} PRIVATE -Wl,--disable-new-dtags)
  # Installed, the libraries lie beside the program (cmake/Install.cmake).
  set_target_properties(${target} PROPERTIES BUILD_RPATH "${CMAKE_BINARY_DIR}/lib;${LIBTORCH_DIR}/lib;${ARROW_ROOT}" INSTALL_RPATH "\$ORIGIN")
endfunction()

# SPDX-License-Identifier: Apache-2.0
# Compiles the versions of everything into polysketch_support (src/support/build_info.cpp includes build_info_generated.hpp).
find_package(Git QUIET)
set(POLYSKETCH_COMMIT "unknown")
if(GIT_FOUND AND EXISTS ${CMAKE_SOURCE_DIR}/.git)
  execute_process(COMMAND ${GIT_EXECUTABLE} describe --always --dirty --abbrev=12 WORKING_DIRECTORY ${CMAKE_SOURCE_DIR}
    OUTPUT_VARIABLE POLYSKETCH_COMMIT OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
endif()
configure_file(${CMAKE_SOURCE_DIR}/cmake/build_info_generated.hpp.in ${CMAKE_BINARY_DIR}/generated/build_info_generated.hpp @ONLY)
target_include_directories(polysketch_support PRIVATE ${CMAKE_BINARY_DIR}/generated)

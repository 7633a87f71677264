# SPDX-License-Identifier: Apache-2.0
# Runs at install time: copies the libraries that a bare machine with LibTorch may lack beside the program, strips all, takes the build's
# paths out of the run paths, and says how large the folder is.
set(lib "$ENV{DESTDIR}${CMAKE_INSTALL_PREFIX}/lib")

file(GET_RUNTIME_DEPENDENCIES EXECUTABLES "${lib}/polysketch" RESOLVED_DEPENDENCIES_VAR found UNRESOLVED_DEPENDENCIES_VAR lost
  # Arrow is copied below. LibTorch and CUDA are the machine's own; so is the C and C++ run time, of which a newer one may be needed by them.
  PRE_EXCLUDE_REGEXES "^lib(torch|c10|cu|nv|nccl|gomp|arrow|parquet)" "^lib(c|m|dl|rt|pthread|stdc[+][+]|gcc_s)[.]so" "^ld-linux")
if(lost)
  message(FATAL_ERROR "libraries that the program needs were not found: ${lost}")
endif()
foreach(library IN LISTS found POLYSKETCH_ARROW_LIBRARIES)
  get_filename_component(name ${library} NAME)
  file(REAL_PATH ${library} file)
  file(COPY_FILE ${file} "${lib}/${name}")
endforeach()

file(GLOB binaries "${lib}/*")
foreach(binary IN LISTS binaries)
  file(CHMOD ${binary} PERMISSIONS OWNER_READ OWNER_WRITE OWNER_EXECUTE GROUP_READ GROUP_EXECUTE WORLD_READ WORLD_EXECUTE)
  execute_process(COMMAND "${POLYSKETCH_STRIP}" --strip-unneeded "${binary}" COMMAND_ERROR_IS_FATAL ANY)
endforeach()

set(bytes 0)
file(GLOB_RECURSE files "$ENV{DESTDIR}${CMAKE_INSTALL_PREFIX}/*")
foreach(file IN LISTS files)
  file(SIZE ${file} size)
  math(EXPR bytes "${bytes} + ${size}")
endforeach()
math(EXPR megabytes "(${bytes} + 999999) / 1000000")
message(STATUS "installed ${megabytes} MB in $ENV{DESTDIR}${CMAKE_INSTALL_PREFIX}")

# SPDX-License-Identifier: Apache-2.0
# `cmake --install` makes a folder that can be moved and copied to another machine: everything but LibTorch, which bin/polysketch finds there.
#   bin/polysketch, bin/gpu_check   what people start
#   lib/                            the program, its libraries, the CUDA module and the GPU tests, stripped
#   share/polysketch/               descriptions of corpora, configurations, licences

install(PROGRAMS ${CMAKE_SOURCE_DIR}/cmake/launcher.sh DESTINATION bin RENAME polysketch)
install(PROGRAMS ${CMAKE_SOURCE_DIR}/scripts/gpu_check DESTINATION bin)
install(TARGETS polysketch RUNTIME DESTINATION lib)
if(TARGET polysketch_cuda)
  install(TARGETS polysketch_cuda LIBRARY DESTINATION lib)
endif()
install(DIRECTORY ${CMAKE_SOURCE_DIR}/data/ DESTINATION share/polysketch)
install(DIRECTORY ${CMAKE_SOURCE_DIR}/configs DESTINATION share/polysketch)
install(FILES ${CMAKE_SOURCE_DIR}/LICENSE ${CMAKE_SOURCE_DIR}/THIRD_PARTY_NOTICES.md DESTINATION share/polysketch/licenses)
install(FILES ${ARROW_ROOT}/licenses/LICENSE.txt DESTINATION share/polysketch/licenses RENAME arrow-LICENSE.txt OPTIONAL)
install(FILES ${ARROW_ROOT}/licenses/NOTICE.txt DESTINATION share/polysketch/licenses RENAME arrow-NOTICE.txt OPTIONAL)
install(DIRECTORY ${SENTENCEPIECE_ROOT}/licenses/ DESTINATION share/polysketch/licenses/sentencepiece OPTIONAL)
foreach(package libyaml-cpp-dev libspdlog-dev libfmt-dev nlohmann-json3-dev libcli11-dev zlib1g-dev libgtest-dev)
  install(FILES /usr/share/doc/${package}/copyright DESTINATION share/polysketch/licenses/debian RENAME ${package}.txt OPTIONAL)
endforeach()

# The tests that need a GPU travel with the program.
function(polysketch_install_test target)
  install(TARGETS ${target} RUNTIME DESTINATION lib)
endfunction()

# Last of all, after the rules of tests/ too, so that it sees everything that was installed.
cmake_language(DEFER CALL install CODE "
  set(POLYSKETCH_STRIP \"${CMAKE_STRIP}\")
  set(POLYSKETCH_ARROW_LIBRARIES \"${ARROW_LIBRARY};${PARQUET_LIBRARY}\")
  include(\"${CMAKE_SOURCE_DIR}/cmake/bundle.cmake\")")

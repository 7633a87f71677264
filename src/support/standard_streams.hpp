// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <exception>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

namespace polysketch {

/// Nobody reads any more what this program writes into a pipe, as when `head` has seen enough. No
/// mistake of anybody, and whether it is noticed depends on who is quicker: the command ends there,
/// main() says nothing and returns 0.
class ReaderGone : public std::exception {
 public:
  const char* what() const noexcept override { return "nobody reads the output"; }
};

/// What a command answers: everything on standard output goes through here, at once and whole.
/// Throws ReaderGone, or UserError 74 if it cannot be written.
void print(std::string_view text);

/// JSON that every reader can read: what is not finite becomes null, what is not UTF-8 (the name of
/// a file) the replacement character. indent -1: on one line.
std::string json_text(const nlohmann::ordered_json& document, int indent = 2);

/// The same and a line end, on standard output.
void print_json(const nlohmann::ordered_json& document, int indent = 2);

/// Writes everything, whatever the descriptor is. name: for the message. Throws as print().
void write_whole(int descriptor, std::string_view text, const std::string& name);

/// Everything up to its end. Throws UserError 74.
std::string read_standard_input();

/// Puts something behind descriptors 0 to 2 that were closed, so that no file that is opened later
/// gets such a number and, with it, the lines that are meant for a person. Writing there still
/// fails.
void open_standard_descriptors();

}  // namespace polysketch

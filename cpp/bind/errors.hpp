// Exceptions of the binding layer and how they reach Python.
#pragma once

#include "tiltwise/kernel/abi.hpp"  // for ErrorText

#include <pybind11/pybind11.h>  // for module_

#include <exception>  // for exception
#include <string>     // for string
#include <utility>    // for move

namespace tiltwise::bind {

/// The Python class an Error becomes.
enum class ErrorKind { type, shape, backend, unavailable };

/// Carries the parts of a tiltwise.errors message; empty parts are left out.
class Error : public std::exception {
 public:
  Error(ErrorKind error_kind, std::string what) : kind(error_kind), message(std::move(what)) {}
  const char* what() const noexcept override { return message.c_str(); }

  ErrorKind kind;
  std::string message, where, expected, found, fix;
};

/// Throws what a kernel reported unless it is status_ok.
void check_status(int status, const ErrorText& text, const std::string& where);

void register_errors(pybind11::module_& module);

}  // namespace tiltwise::bind

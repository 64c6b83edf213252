#include "errors.hpp"

#include <new>  // for bad_alloc

namespace py = pybind11;

namespace tiltwise::bind {

namespace {

const char* class_name(ErrorKind kind) {
  switch (kind) {
    case ErrorKind::shape:
      return "ShapeError";
    case ErrorKind::unavailable:
      return "BackendUnavailable";
    default:
      return "BackendError";
  }
}

void set_python_error(const Error& error) {
  py::dict parts;
  const auto add = [&parts](const char* name, const std::string& text) {
    if (!text.empty()) {
      parts[name] = text;
    }
  };
  add("where", error.where);
  add("expected", error.expected);
  add("found", error.found);
  add("fix", error.fix);
  const py::module_ errors = py::module_::import("tiltwise.errors");
  // A TypeError carries the text of the same message.
  const py::object base = errors.attr(error.kind == ErrorKind::type ? "TiltwiseError" : class_name(error.kind));
  const py::object value = base(error.message, **parts);
  if (error.kind == ErrorKind::type) {
    PyErr_SetObject(PyExc_TypeError, py::str(value).ptr());
  } else {
    PyErr_SetObject(py::type::of(value).ptr(), value.ptr());
  }
}

}  // namespace

void check_status(int status, const ErrorText& text, const std::string& where) {
  if (status == status_ok) {
    return;
  }
  if (status == status_out_of_memory) {
    throw std::bad_alloc();  // MemoryError
  }
  Error error(status == status_unavailable ? ErrorKind::unavailable : ErrorKind::backend, text.text);
  error.where = where;
  throw error;
}

void register_errors(py::module_&) {
  py::register_local_exception_translator([](std::exception_ptr pending) {
    try {
      if (pending) {
        std::rethrow_exception(pending);
      }
    } catch (const Error& error) {
      set_python_error(error);
    }
  });
}

}  // namespace tiltwise::bind

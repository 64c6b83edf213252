// Checked views of NumPy arrays: exact dtype, C-contiguous, never a copy.
#pragma once

#include "errors.hpp"

#include "tiltwise/math/complex.hpp"  // for ComplexF, ComplexD

#include <pybind11/complex.h>  // for array_t of complex
#include <pybind11/numpy.h>    // for array, array_t

#include <complex>  // for complex
#include <string>   // for string
#include <vector>   // for vector

namespace tiltwise::bind {

/// The NumPy element type of a core type.
template <class T>
struct Element {
  using type = T;
};
template <>
struct Element<ComplexF> {
  using type = std::complex<float>;
};
template <>
struct Element<ComplexD> {
  using type = std::complex<double>;
};

/// Where an argument stands, for messages.
struct Argument {
  const char* kernel;
  const char* name;
  const char* shape;  ///< in symbols, as in the contract
};

/// Extents as they must be; -1 stands for any.
using Extents = std::vector<std::int64_t>;

/// Throws unless `value` is a usable array of this dtype and shape.
pybind11::array check_array(const pybind11::object& value, const pybind11::dtype& dtype, const Argument& argument,
                            const Extents& extents, bool writeable);

/// An argument that passed the checks, and its memory.
template <class T>
struct View {
  pybind11::array array;
  T* data;

  std::int64_t extent(int axis) const { return array.shape(axis); }
};

template <class T>
View<const T> input(const pybind11::object& value, const Argument& argument, const Extents& extents) {
  const auto dtype = pybind11::dtype::of<typename Element<T>::type>();
  pybind11::array array = check_array(value, dtype, argument, extents, false);
  return {array, static_cast<const T*>(array.data())};
}

template <class T>
View<T> in_place(const pybind11::object& value, const Argument& argument, const Extents& extents) {
  const auto dtype = pybind11::dtype::of<typename Element<T>::type>();
  pybind11::array array = check_array(value, dtype, argument, extents, true);
  return {array, static_cast<T*>(array.mutable_data())};
}

/// A new array that owns its memory.
template <class T>
View<T> output(const Extents& extents) {
  pybind11::array_t<typename Element<T>::type> array(extents);
  return {array, static_cast<T*>(static_cast<void*>(array.mutable_data()))};
}

/// `value`, or a new array when it is None.
template <class T>
View<T> output_or_new(const pybind11::object& value, const Argument& argument, const Extents& extents) {
  return value.is_none() ? output<T>(extents) : in_place<T>(value, argument, extents);
}

}  // namespace tiltwise::bind

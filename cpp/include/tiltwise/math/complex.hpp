// Complex numbers as plain pairs, laid out like NumPy's complex64 and complex128.
#pragma once

#include "tiltwise/base/hd.hpp"      // for TW_HD
#include "tiltwise/math/scalar.hpp"  // for mul_add

namespace tiltwise {

struct ComplexF {
  float re, im;
};

struct ComplexD {
  double re, im;
};

TW_HD ComplexF conj(ComplexF a) {
  return {a.re, -a.im};
}

TW_HD ComplexF multiply(ComplexF a, ComplexF b) {
  return {mul_add(a.re, b.re, -(a.im * b.im)), mul_add(a.re, b.im, a.im * b.re)};
}

}  // namespace tiltwise

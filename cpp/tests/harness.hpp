// A few lines of test harness: named cases, failures with file and line, exit status.
#pragma once

#include <cstdio>      // for printf
#include <functional>  // for function
#include <vector>      // for vector

namespace harness {

struct Case {
  const char* name;
  std::function<void()> run;
};

inline int& failures() {
  static int count = 0;
  return count;
}

inline int run_all(const std::vector<Case>& cases) {
  for (const Case& c : cases) {
    const int before = failures();
    c.run();
    std::printf("%s %s\n", failures() == before ? "ok  " : "FAIL", c.name);
  }
  std::printf("%zu cases, %d failures\n", cases.size(), failures());
  return failures() == 0 && !cases.empty() ? 0 : 1;
}

}  // namespace harness

#define EXPECT(condition)                                                   \
  do {                                                                      \
    if (!(condition)) {                                                     \
      ++harness::failures();                                                \
      std::printf("%s:%d: not true: %s\n", __FILE__, __LINE__, #condition); \
    }                                                                       \
  } while (false)

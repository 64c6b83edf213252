// Every built-in table against the host's, with several threads: what the sanitizers watch.
// Arrays have exactly the size they need, so that a read beyond an end is seen.
#include "harness.hpp"

#include "registry/registry.hpp"  // for builtin_tables

#include <cmath>   // for fabs, sqrt, HUGE_VALF
#include <memory>  // for make_unique
#include <random>  // for mt19937, normal_distribution
#include <vector>  // for vector

namespace {

using namespace tiltwise;

std::mt19937 generator(7);

std::vector<float> random_floats(std::int64_t n) {
  std::normal_distribution<float> normal;
  std::vector<float> values(static_cast<std::size_t>(n));
  for (float& value : values) {
    value = normal(generator);
  }
  return values;
}

std::vector<ComplexF> random_complex(std::int64_t n) {
  const std::vector<float> parts = random_floats(2 * n);
  std::vector<ComplexF> values(static_cast<std::size_t>(n));
  for (std::size_t i = 0; i < values.size(); ++i) {
    values[i] = {parts[2 * i], parts[2 * i + 1]};
  }
  return values;
}

/// Any array as plain numbers.
template <class Number, class Value>
std::vector<double> numbers(const std::vector<Value>& values) {
  const auto* first = reinterpret_cast<const Number*>(values.data());
  return {first, first + values.size() * sizeof(Value) / sizeof(Number)};
}

void expect_close(const std::vector<double>& found, const std::vector<double>& expected, double tolerance) {
  double difference = 0.0, norm = 0.0;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    difference += (found[i] - expected[i]) * (found[i] - expected[i]);
    norm += expected[i] * expected[i];
  }
  EXPECT(std::sqrt(difference) <= tolerance * std::sqrt(norm));
}

/// Calls check(table) for every table that runs here, and returns what the host gave first.
template <class Run>
void compare_tables(const Run& run, double tolerance) {
  std::vector<double> expected;
  for (const KernelTable* table : registry::builtin_tables()) {
    ErrorText error = {};
    if (table->available(&error) != status_ok) {
      continue;
    }
    const std::vector<double> one = run(*table, 1), many = run(*table, 3);
    EXPECT(one == many);
    if (expected.empty()) {
      expected = one;
    }
    expect_close(one, expected, tolerance);
  }
}

// Float32 arithmetic in another order, sums of a few hundred terms.
constexpr double single = 2e-5;
// Both factors of every product rounded to 8 bits: at most 2^-7 of a term, of random sign.
constexpr double rounded = 4e-3;

constexpr std::int64_t size = 19, half = size / 2 + 1, n = 5, k = 261;

/// Rotations are not needed to exercise the geometry: any matrix will do.
struct Slices {
  std::vector<ComplexF> volume = random_complex(size * size * half);
  std::vector<float> matrices = random_floats(9 * n);
  std::vector<float> frequencies = random_floats(3 * k);
  std::vector<ComplexF> slices = random_complex(n * k);
  std::vector<float> weights = random_floats(n * k);
};

void project_agrees() {
  const Slices s;
  compare_tables(
      [&](const KernelTable& table, std::int32_t threads) {
        std::vector<ComplexF> out(n * k);
        const ProjectArgs args = {s.volume.data(), s.matrices.data(), s.frequencies.data(), out.data(), size, n, k, 9.0,
                                  threads};
        ErrorText error = {};
        EXPECT(table.project(&args, &error) == status_ok);
        return numbers<float>(out);
      },
      single);
}

void insert_agrees() {
  const Slices s;
  compare_tables(
      [&](const KernelTable& table, std::int32_t threads) {
        std::vector<ComplexD> data(s.volume.size(), {0.0, 0.0});
        std::vector<double> weight(s.volume.size(), 0.0);
        const InsertArgs args = {s.slices.data(),
                                 s.weights.data(),
                                 s.matrices.data(),
                                 s.frequencies.data(),
                                 data.data(),
                                 weight.data(),
                                 size,
                                 n,
                                 k,
                                 9.0,
                                 threads};
        ErrorText error = {};
        EXPECT(table.insert(&args, &error) == status_ok);
        std::vector<double> all = numbers<double>(data);
        all.insert(all.end(), weight.begin(), weight.end());
        return all;
      },
      single);
}

template <int axes>
void curvature_agrees() {
  const Slices s;
  const std::vector<ComplexF> images = random_complex(n * k);
  const std::vector<std::int32_t> rows = {4, 0, 3, 3, 1};
  const std::vector<float> slopes = random_floats(axes * n);
  compare_tables(
      [&](const KernelTable& table, std::int32_t threads) {
        std::vector<double> out(static_cast<std::size_t>(n * curvature_terms<axes>));
        const CurvatureArgs args = {s.volume.data(),
                                    s.matrices.data(),
                                    s.frequencies.data(),
                                    images.data(),
                                    s.weights.data(),
                                    rows.data(),
                                    slopes.data(),
                                    out.data(),
                                    size,
                                    n,
                                    k - 3,
                                    n,
                                    k,
                                    axes,
                                    9.0,
                                    threads};
        ErrorText error = {};
        EXPECT(table.curvature(&args, &error) == status_ok);
        return out;
      },
      single);
}

constexpr std::int64_t rotations = 23, shifts = 5, components = 777;

struct Scores {
  std::vector<ComplexF> slices = random_complex(rotations * components);
  std::vector<ComplexF> image = random_complex(components);
  std::vector<float> power = random_floats(components);
  std::vector<ComplexF> phases = random_complex(shifts * components);
  std::vector<float> weights = random_floats(rotations * shifts);
};

void score_agrees(bool given, std::int32_t rough, double tolerance) {
  const Scores s;
  const auto wanted = std::make_unique<bool[]>(rotations * shifts);
  for (std::int64_t i = 0; i < rotations * shifts; ++i) {
    wanted[static_cast<std::size_t>(i)] = i % 7 < 2;
  }
  std::vector<std::int32_t> rows(rotations), columns = {4, 0, 0, 3, 1};
  for (std::size_t i = 0; i < rows.size(); ++i) {
    rows[i] = static_cast<std::int32_t>((7 * i) % rotations);
  }
  compare_tables(
      [&](const KernelTable& table, std::int32_t threads) {
        std::vector<float> cross(rotations * shifts), quadratic(rotations);
        const ScoreArgs args = {s.slices.data(),
                                s.image.data(),
                                s.power.data(),
                                s.phases.data(),
                                rows.data(),
                                columns.data(),
                                given ? wanted.get() : nullptr,
                                cross.data(),
                                quadratic.data(),
                                rotations,
                                shifts,
                                components,
                                rotations,
                                shifts,
                                threads,
                                rough};
        ErrorText error = {};
        EXPECT(table.score(&args, &error) == status_ok);
        for (std::size_t i = 0; given && i < cross.size(); ++i) {
          EXPECT(wanted[i] == (cross[i] > -HUGE_VALF));
          cross[i] = wanted[i] ? cross[i] : 0.0f;
        }
        cross.insert(cross.end(), quadratic.begin(), quadratic.end());
        return numbers<float>(cross);
      },
      tolerance);
}

void backproject_agrees() {
  Scores s;
  for (std::size_t i = 0; i < s.weights.size(); i += 2) {
    s.weights[i] = 0.0f;
  }
  compare_tables(
      [&](const KernelTable& table, std::int32_t threads) {
        std::vector<ComplexF> sums(rotations * components);
        std::vector<float> totals(rotations * components);
        const BackprojectArgs args = {s.weights.data(), s.image.data(), s.power.data(), s.phases.data(), sums.data(),
                                      totals.data(),    rotations,      shifts,         components,      threads};
        ErrorText error = {};
        EXPECT(table.backproject(&args, &error) == status_ok);
        std::vector<double> all = numbers<float>(sums);
        all.insert(all.end(), totals.begin(), totals.end());
        return all;
      },
      single);
}

void posterior_agrees() {
  const Scores s;
  compare_tables(
      [&](const KernelTable& table, std::int32_t threads) {
        std::vector<float> weights(rotations * shifts);
        PosteriorSummary summary = {};
        const PosteriorArgs args = {s.weights.data(), s.power.data(), s.power.data(), weights.data(),
                                    &summary,         rotations,      shifts,         0.9,
                                    threads};
        ErrorText error = {};
        EXPECT(table.posterior(&args, &error) == status_ok);
        EXPECT(summary.n_significant > 0 && summary.n_significant < rotations * shifts);
        std::vector<double> all = numbers<float>(weights);
        all.push_back(summary.log_evidence);
        return all;
      },
      single);
}

void shell_sums_agree() {
  const Scores s;
  std::vector<std::int32_t> shells(components);
  for (std::size_t i = 0; i < shells.size(); ++i) {
    shells[i] = static_cast<std::int32_t>(i / 50) - 1;
  }
  compare_tables(
      [&](const KernelTable& table, std::int32_t threads) {
        std::vector<double> out(shifts * 12);
        const ShellSumsArgs args = {s.phases.data(), s.phases.data(), s.power.data(), shells.data(),
                                    out.data(),      shifts,          components,     12,
                                    threads};
        ErrorText error = {};
        EXPECT(table.shell_sums(&args, &error) == status_ok);
        return out;
      },
      1e-12);
}

void tables_agree() {
  constexpr std::int64_t limit = 7, points = 6, side = 2 * points - 1, rows_of_weights = 2;
  std::vector<std::int32_t> frequencies;
  for (std::int32_t ky = -limit; ky <= limit; ++ky) {
    for (std::int32_t kx = 0; kx <= limit; ++kx) {
      if (kx * kx + ky * ky <= limit * limit) {
        frequencies.push_back(kx);
        frequencies.push_back(ky);
      }
    }
  }
  const auto count = static_cast<std::int64_t>(frequencies.size() / 2), stride = count + 2;
  const std::vector<ComplexF> slices = random_complex(n * count), images = random_complex(n * stride);
  const std::vector<float> powers = random_floats(n * stride), weights = random_floats(rows_of_weights * count);
  const std::vector<std::int32_t> rows = {1, 0, 0, 1, 1};
  std::vector<float> cosines = random_floats((limit + 1) * points), sines = random_floats((limit + 1) * points);
  for (std::int64_t line = 0; line <= limit; ++line) {
    for (std::int64_t shift = 0; shift < points; ++shift) {
      if (line == 0 || shift == 0) {
        sines[static_cast<std::size_t>(line * points + shift)] = 0.0f;
      }
    }
  }
  compare_tables(
      [&](const KernelTable& table, std::int32_t threads) {
        std::vector<float> tables(n * side * side);
        std::vector<double> moments(n * cc_moments);
        const CcTableArgs args = {
            slices.data(),   images.data(), powers.data(), weights.data(), rows.data(), frequencies.data(),
            cosines.data(),  sines.data(),  tables.data(), moments.data(), n,           count,
            rows_of_weights, stride,        limit,         points - 1,     threads};
        ErrorText error = {};
        EXPECT(table.cc_table(&args, &error) == status_ok);
        std::vector<double> all = numbers<float>(tables);
        all.insert(all.end(), moments.begin(), moments.end());
        return all;
      },
      single);
}

void values_of_tables_agree() {
  constexpr std::int64_t side = 9, count = 3, items = 1500;
  const std::vector<float> tables = random_floats(count * side * side), places = random_floats(2 * items);
  std::vector<double> at(places.begin(), places.end());
  std::vector<std::int32_t> rows(items);
  for (std::size_t i = 0; i < rows.size(); ++i) {
    rows[i] = static_cast<std::int32_t>(i % count);
    at[2 * i] *= 3.0;  // some lie outside
  }
  compare_tables(
      [&](const KernelTable& table, std::int32_t threads) {
        std::vector<double> out(items * cc_cost_terms);
        const CcCostArgs args = {tables.data(), rows.data(), at.data(), out.data(), items, count, side, threads};
        ErrorText error = {};
        EXPECT(table.cc_cost(&args, &error) == status_ok);
        return out;
      },
      1e-14);
}

void empty_extents_are_allowed() {
  for (const KernelTable* table : registry::builtin_tables()) {
    ErrorText error = {};
    if (table->available(&error) != status_ok) {
      continue;
    }
    std::vector<ComplexF> volume(8 * 8 * 5);
    std::vector<ComplexD> data(volume.size());
    std::vector<double> weight(volume.size());
    const ProjectArgs project = {volume.data(), nullptr, nullptr, nullptr, 8, 0, 0, 4.0, 2};
    EXPECT(table->project(&project, &error) == status_ok);
    const InsertArgs insert = {nullptr, nullptr, nullptr, nullptr, data.data(), weight.data(), 8, 0, 0, 4.0, 2};
    EXPECT(table->insert(&insert, &error) == status_ok);
    const ScoreArgs score = {nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr,
                             nullptr, 0,       0,       0,       0,       0,       2,       1};
    EXPECT(table->score(&score, &error) == status_ok);
    const BackprojectArgs backproject = {nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, 0, 0, 0, 2};
    EXPECT(table->backproject(&backproject, &error) == status_ok);
    const ShellSumsArgs shells = {nullptr, nullptr, nullptr, nullptr, nullptr, 0, 0, 0, 2};
    EXPECT(table->shell_sums(&shells, &error) == status_ok);
    const CurvatureArgs curvature = {
        volume.data(), nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, 8, 0, 0, 0, 0, 2, 4.0, 2};
    EXPECT(table->curvature(&curvature, &error) == status_ok);
    const float one = 1.0f, zero = 0.0f;
    const CcTableArgs tables = {nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, &one, &zero, nullptr,
                                nullptr, 0,       0,       0,       0,       0,       0,    2};
    EXPECT(table->cc_table(&tables, &error) == status_ok);
    const CcCostArgs values = {nullptr, nullptr, nullptr, nullptr, 0, 0, 1, 2};
    EXPECT(table->cc_cost(&values, &error) == status_ok);
  }
}

}  // namespace

int main() {
  return harness::run_all({{"project agrees", project_agrees},
                           {"insert agrees", insert_agrees},
                           {"curvature of images agrees", curvature_agrees<2>},
                           {"curvature of 3D arrays agrees", curvature_agrees<3>},
                           {"score agrees", [] { score_agrees(false, 0, single); }},
                           {"rough scores agree", [] { score_agrees(false, 1, rounded); }},
                           {"some scores agree", [] { score_agrees(true, 0, single); }},
                           {"some rough scores agree", [] { score_agrees(true, 1, rounded); }},
                           {"backproject agrees", backproject_agrees},
                           {"posterior agrees", posterior_agrees},
                           {"shell sums agree", shell_sums_agree},
                           {"tables agree", tables_agree},
                           {"values of tables agree", values_of_tables_agree},
                           {"empty extents are allowed", empty_extents_are_allowed}});
}

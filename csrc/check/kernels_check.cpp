// Every kernel of every instruction set of this machine against plain loops, over random configurations. No torch, so
// that sanitizers see all of it: run.sh compiles and runs it.
//
//   kernels_check [configurations = 300] [seed = 1] [first configuration = 0]
#include <sanitizer/common_interface_defs.h>

#include <cstdio>
#include <cstdlib>

#include "overlap.h"
#include "plain_contraction.h"
#include "plain_survey.h"

namespace check {
namespace {

std::string at_work;  // what runs now, for messages
double worst = 0.0;   // error, as a share of what is allowed

constexpr double FLOAT_TOLERANCE = 2e-6, DOUBLE_TOLERANCE = 1e-13;  // of a result's size

std::vector<const rfa::Kernels*> instruction_sets() {
  std::vector<const rfa::Kernels*> sets = {&rfa::baseline_kernels()};
#if defined(__x86_64__)
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (avx2) sets.push_back(&rfa::avx2_kernels());
  if (avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl"))
    sets.push_back(&rfa::avx512_kernels());
#endif
  return sets;
}

// result(n) is what a kernel made of expected[n].
template <class Result>
void compare(const std::string& name, const Numbers& expected, double tolerance, Result result) {
  for (size_t n = 0; n < expected.size(); ++n) {
    const double allowed = tolerance * expected[n].size + 1e-30, error = std::fabs(result(n) - expected[n].value);
    if (error <= allowed) {
      worst = std::max(worst, error / allowed);
      continue;
    }
    std::printf("FAILED: %s: %s[%zu] is %.9g, not %.9g (%.9g allowed)\n", at_work.c_str(), name.c_str(), n,
                double(result(n)), expected[n].value, allowed);
    std::exit(1);
  }
}

// The element [b, c, y, x] of a map, of sizes s, by its number.
float element(const MapBuffer& map, const Sizes& s, int64_t n) {
  return map.at(n / (s.channels * s.height * s.width), n / (s.height * s.width) % s.channels, n / s.width % s.height,
                n % s.width);
}

// What all kernels must give.
struct Expected {
  Numbers moments, corrected;
  Numbers forward[3];      // by Attention
  Gradients gradients[3];
  Surveyed places, lines;
  FeatureGradients places_gradients, lines_gradients;

  explicit Expected(const Configuration& k) {
    const Plain plain(k);
    moments = plain.moments();
    corrected = plain.correction();
    for (size_t n = 0; n < corrected.size(); ++n) corrected[n] += Number(element(k.grad_x_before, k.input(), n));
    const Numbers grad_out = grad_out_of(plain), grad_weighed = grad_weighed_of(plain, grad_out);
    for (int kind = 0; kind < 3; ++kind) {
      const Contraction contraction(plain, rfa::Attention(kind));
      forward[kind] = contraction.forward();
      gradients[kind] = contraction.backward(grad_out, grad_weighed);
    }
    places = survey_places(plain);
    lines = survey_lines(plain);
    places_gradients = survey_places_backward(plain, places.first);
    lines_gradients = survey_lines_backward(plain);
  }
};

class Check {
 public:
  Check(const rfa::Kernels& kernels, const Configuration& configuration, const Expected& expected)
      : kernels_(kernels), k(configuration), s(k.shape), expected_(expected) {}

  void all() const {
    moments();
    correct();
    const Buffer<float> coefficients = fold(k.attention_weight.data()), without = fold(nullptr);
    contraction(coefficients, rfa::Attention::softmax);
    contraction(without, rfa::Attention::gates);
    contraction(without, rfa::Attention::lines);
    survey(without, rfa::Attention::gates, expected_.places);
    survey(without, rfa::Attention::lines, expected_.lines);
    survey_backward(without, rfa::Attention::gates, expected_.places_gradients);
    survey_backward(without, rfa::Attention::lines, expected_.lines_gradients);
  }

 private:
  const rfa::Kernels& kernels_;
  const Configuration& k;
  const rfa::Shape& s;
  const Expected& expected_;

  // task(scratch, n) for each task of a kernel, with new scratch: nothing may be handed from one to the next.
  template <class Task, class... Numbers>
  void run(const std::string& kernel, int64_t tasks, int64_t scratch_floats, Task task,
           const Buffer<Numbers>&... buffers) const {
    // Guarded scratch is rounded up to whole 64 bytes, or it would not begin at a multiple of them.
    const int64_t floats = k.guarded ? (scratch_floats + 15) / 16 * 16 : scratch_floats;
    Results results(buffers...);
    for (int64_t done = 0; done < tasks; ++done) {
      task(Buffer<float>(floats, k.guarded).data(), k.last_task_first ? tasks - 1 - done : done);
      if (!results.changed_again()) continue;
      std::printf("FAILED: %s: two tasks write to the same place in %s\n", at_work.c_str(), kernel.c_str());
      std::exit(1);
    }
  }

  // Results that a kernel adds to are zero at first, the others NaN.
  Buffer<float> added_to(int64_t count) const {
    Buffer<float> buffer(count, k.guarded);
    buffer.fill(0.0f);
    return buffer;
  }
  MapBuffer grad_x_added_to() const {
    MapBuffer map(k.grad_x_layout, k.input(), k.guarded);
    map.buffer.fill(0.0f);
    return map;
  }

  Buffer<float> fold(const float* attention_weight) const {
    Buffer<float> coefficients(s.channels * kernels_.coefficients(s.taps()), k.guarded);
    kernels_.fold(k.feature_weight.data(), attention_weight, k.scale.data(), k.offset.data(),
                  k.centred ? k.centre.data() : nullptr, s.channels, s.taps(), coefficients.data());
    return coefficients;
  }

  void contraction(const Buffer<float>& coefficients, rfa::Attention kind) const {
    const char* names[] = {"contraction with softmax", "contraction with gates", "contraction with lines"};
    const std::string name = names[int(kind)];
    forward(name, coefficients, k.gates(kind), expected_.forward[int(kind)]);
    backward(name, coefficients, k.gates(kind), expected_.gradients[int(kind)]);
  }

  void forward(const std::string& name, const Buffer<float>& coefficients, const rfa::Gates& gates,
               const Numbers& expected) const {
    const MapBuffer out(k.out_layout, k.output(), k.guarded);
    const rfa::ForwardArgs args = {s, k.x.view(), out.map, coefficients.data(), k.weight.data(), k.epilogue(), gates};
    run(name + ", forward", k.tasks, kernels_.forward_scratch(s),
        [&](float* scratch, int64_t n) { kernels_.forward(args, scratch, n, k.tasks); }, out.buffer);
    const int64_t plane = s.out_height * s.out_width;
    compare(name + ": out", expected, FLOAT_TOLERANCE, [&](int64_t n) {
      const int64_t o = n / s.pixels(), p = n % s.pixels();
      return out.at(p / plane, o, p % plane / s.out_width, p % s.out_width);
    });
  }

  void backward(const std::string& name, const Buffer<float>& coefficients, const rfa::Gates& gates,
                const Gradients& expected) const {
    const int64_t splits = k.splits, shares = k.backward_tasks / splits;  // of the images, of the channels
    // How many parts of the attention's gradients are to be added up: see GateGradients.
    const int64_t first_parts = gates.kind == rfa::Attention::softmax ? splits : 1;
    const int64_t second_parts = gates.kind == rfa::Attention::gates ? shares : 1;
    const MapBuffer grad_x = grad_x_added_to();
    const Buffer<float> weight(splits * count(expected.weight), k.guarded);
    const Buffer<float> first = added_to(first_parts * count(expected.attention.first));
    const Buffer<float> second = added_to(second_parts * count(expected.attention.second));
    const Buffer<double> sum(splits * count(expected.features.sum), k.guarded);
    const Buffer<double> outer(splits * count(expected.features.outer), k.guarded);
    const rfa::BackwardArgs args = {s,
                                    k.x.view(),
                                    k.grad_out.view(),
                                    coefficients.data(),
                                    k.weight.data(),
                                    gates,
                                    k.input_too ? grad_x.map : rfa::Map{},
                                    weight.data(),
                                    {first.data(), second.data()},
                                    sum.data(),
                                    outer.data(),
                                    splits,
                                    k.blocks_a_group};
    run(name + ", backward", k.backward_tasks, kernels_.backward_scratch(s),
        [&](float* scratch, int64_t n) { kernels_.backward(args, scratch, n, k.backward_tasks); },
        grad_x.buffer, weight, first, second, sum, outer);
    if (k.input_too) compare_grad_x(name, expected.features.grad_x, grad_x);
    compare_parts(name + ": gradient of weight", expected.weight, weight);
    compare_parts(name + ": gradient of the attention, first", expected.attention.first, first);
    compare_parts(name + ": gradient of the attention, second", expected.attention.second, second);
    compare_parts(name + ": sum", expected.features.sum, sum);
    compare_parts(name + ": outer", expected.features.outer, outer);
  }

  void moments() const {
    const Buffer<double> result(int64_t(expected_.moments.size()), k.guarded);
    const rfa::MomentsArgs args = {s, k.x.view(), result.data()};
    run("moments", k.tasks, kernels_.rows_scratch(s),
        [&](float* scratch, int64_t n) { kernels_.moments(args, scratch, n, k.tasks); }, result);
    compare("moments", expected_.moments, DOUBLE_TOLERANCE, [&](int64_t n) { return result[n]; });
  }

  void correct() const {
    const MapBuffer grad_x(k.grad_x_layout, k.input(), k.guarded);
    for (int64_t n = 0; n < grad_x.buffer.count(); ++n) grad_x.buffer[n] = k.grad_x_before.buffer[n];
    const rfa::CorrectionArgs args = {s, k.x.view(), grad_x.map, k.alpha.data(), k.q.data()};
    run("correction", k.tasks, kernels_.rows_scratch(s),
        [&](float* scratch, int64_t n) { kernels_.correct(args, scratch, n, k.tasks); }, grad_x.buffer);
    compare_grad_x("correction", expected_.corrected, grad_x);
  }

  void survey(const Buffer<float>& coefficients, rfa::Attention kind, const Surveyed& expected) const {
    const bool lines = kind == rfa::Attention::lines, ties_too = !lines && k.counts_ties;
    const auto result = [&](const Numbers& numbers) {
      return lines ? added_to(count(numbers)) : Buffer<float>(count(numbers), k.guarded);
    };
    const Buffer<float> first = result(expected.first), second = result(expected.second), ties = result(expected.ties);
    const rfa::SurveyArgs args = {s,    k.x.view(),   coefficients.data(),
                                  kind, first.data(), second.data(),
                                  ties_too ? ties.data() : nullptr};
    run("survey", k.tasks, kernels_.survey_scratch(s),
        [&](float* scratch, int64_t n) { kernels_.survey(args, scratch, n, k.tasks); }, first, second, ties);
    compare_parts(lines ? "survey: means over rows" : "survey: largest over channels", expected.first, first);
    compare_parts(lines ? "survey: means over columns" : "survey: means over channels", expected.second, second);
    if (ties_too) compare_parts("survey: ties", expected.ties, ties);
  }

  void survey_backward(const Buffer<float>& coefficients, rfa::Attention kind, const FeatureGradients& expected) const {
    const bool lines = kind == rfa::Attention::lines;
    const MapBuffer grad_x = grad_x_added_to();
    const Buffer<double> sum(count(expected.sum), k.guarded), outer(count(expected.outer), k.guarded);
    const Buffer<float> largest(count(expected_.places.first), k.guarded);
    for (int64_t n = 0; n < largest.count(); ++n) largest[n] = float(expected_.places.first[n].value);
    const rfa::SurveyBackwardArgs args = {s,
                                          k.x.view(),
                                          coefficients.data(),
                                          kind,
                                          lines ? nullptr : largest.data(),
                                          lines ? k.grad_rows.data() : k.grad_largest.data(),
                                          lines ? k.grad_columns.data() : k.grad_mean.data(),
                                          grad_x.map,
                                          sum.data(),
                                          outer.data()};
    const std::string name = lines ? "backward of the survey of lines" : "backward of the survey of places";
    run(name, k.tasks, kernels_.survey_backward_scratch(s),
        [&](float* scratch, int64_t n) { kernels_.survey_backward(args, scratch, n, k.tasks); },
        grad_x.buffer, sum, outer);
    compare_grad_x(name, expected.grad_x, grad_x);
    compare_parts(name + ": sum", expected.sum, sum);
    compare_parts(name + ": outer", expected.outer, outer);
  }

  static int64_t count(const Numbers& numbers) { return int64_t(numbers.size()); }

  void compare_grad_x(const std::string& name, const Numbers& expected, const MapBuffer& grad_x) const {
    compare(name + ": grad_x", expected, FLOAT_TOLERANCE, [&](int64_t n) { return element(grad_x, k.input(), n); });
  }

  // Results that come in parts, one after the other, to be added up.
  template <class Results>
  void compare_parts(const std::string& name, const Numbers& expected, const Results& results) const {
    compare(name, expected, FLOAT_TOLERANCE, [&](int64_t n) {
      double total = 0.0;
      for (int64_t at = n; at < results.count(); at += count(expected)) total += results[at];
      return total;
    });
  }
};

void tell_what_died() { std::fprintf(stderr, "FAILED: %s: stopped by a sanitizer, see above\n", at_work.c_str()); }

}  // namespace
}  // namespace check

int main(int count, char** words) {
  const auto number = [&](int at, uint64_t otherwise) {
    return count > at ? std::strtoull(words[at], nullptr, 10) : otherwise;
  };
  const uint64_t configurations = number(1, 300), seed = number(2, 1), first = number(3, 0);
  __sanitizer_set_death_callback(check::tell_what_died);
  const auto sets = check::instruction_sets();
  for (uint64_t n = first; n < first + configurations; ++n) {
    const std::string name = "seed " + std::to_string(seed) + " configuration " + std::to_string(n);
    check::at_work = name + ": the plain computation";
    const check::Configuration configuration(seed, n);
    const check::Expected expected(configuration);
    for (const rfa::Kernels* kernels : sets) {
      check::at_work = name + " with " + kernels->name + ": " + configuration.describe();
      check::Check(*kernels, configuration, expected).all();
    }
  }
  std::printf("%llu configurations agree on", static_cast<unsigned long long>(configurations));
  for (const rfa::Kernels* kernels : sets) std::printf(" %s", kernels->name);
  std::printf(" (seed %llu; at worst %.0f%% of the error allowed)\n", static_cast<unsigned long long>(seed),
              100.0 * check::worst);
}

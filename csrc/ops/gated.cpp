// RFCBAMConv and RFCAConv: attentions that look at the whole map, through a survey of its features, and are two gates.
//
// kind 1, gates: a factor a channel and a factor a place. kind 2, lines: a factor a row and a factor a column of the map of
// taps. The features are relu(feature_weight . (patch - centre) + feature_bias), the norm being folded; centre [C, T], in
// double precision, is near the mean of the patches, so that filters and bias do not cancel each other, or left out.
#include <tuple>

#include "contraction.h"

namespace rfa {
namespace {

struct Features : Parameters {
  Tensor coefficients;
  Attention kind;

  Features(const Tensor& x, const Tensor& weight, const Tensor& bias, const MaybeTensor& centre_,
           const std::vector<int64_t>& window, int64_t kind_, int64_t out_channels, int64_t groups)
      : Parameters(x, weight, std::nullopt, bias, std::nullopt, std::nullopt, std::nullopt, 0, 0.0, window, out_channels,
                   groups, Normed::no),
        kind(Attention(kind_)) {
    STD_TORCH_CHECK(kind_ == 1 || kind_ == 2, "kind must be 1 or 2");
    Norm folded = norm(std::nullopt);
    if (!centre_) {
      coefficients = Parameters::coefficients(folded, nullptr, nullptr);
      return;
    }
    const int64_t taps = shape.taps();
    const Tensor centre = dense(*centre_, "centre", {shape.channels, taps}, ScalarType::Double);
    // What is added to the filters at 0, where the bias is what is added at the centre.
    for (int64_t feature = 0; feature < shape.channels * taps; ++feature) {
      const float* filter = floats(feature_weight) + feature * taps;
      const double* at = doubles(centre) + feature / taps * taps;
      for (int64_t s = 0; s < taps; ++s) folded.offset[feature] -= filter[s] * at[s];
    }
    coefficients = Parameters::coefficients(folded, nullptr, doubles(centre));
  }

  Tensor checked_first(const Tensor& t, const char* name) const {
    return kind == Attention::gates ? dense(t, name, {shape.batch, shape.channels})
                                    : dense(t, name, {shape.batch, shape.channels, shape.kernel_h, shape.out_height});
  }
  Tensor checked_second(const Tensor& t, const char* name) const {
    return kind == Attention::gates ? checked_places(t, name)
                                    : dense(t, name, {shape.batch, shape.channels, shape.kernel_w, shape.out_width});
  }
  Tensor checked_places(const Tensor& t, const char* name) const {
    return dense(t, name, {shape.batch, shape.taps(), shape.out_height, shape.out_width});
  }
};

// Gates: the largest and the mean feature over C, [B, T, h, w] each, and how many channels have the largest (if wanted).
// Lines: means over the rows and the columns of the map of taps, [B, C, kh, h] and [B, C, kw, w], and nothing.
std::tuple<Tensor, Tensor, Tensor> survey_features(const Tensor& x, const Tensor& feature_weight,
                                                   const Tensor& feature_bias, MaybeTensor centre,
                                                   std::vector<int64_t> window, int64_t kind, bool count_ties) {
  const Features f(x, feature_weight, feature_bias, centre, window, kind, 1, 1);
  const Shape& s = f.shape;
  const bool lines = f.kind == Attention::lines;
  const std::vector<int64_t> places = {s.batch, s.taps(), s.out_height, s.out_width};
  const Tensor first = lines ? zeros({s.batch, s.channels, s.kernel_h, s.out_height}) : empty(places);
  const Tensor second = lines ? zeros({s.batch, s.channels, s.kernel_w, s.out_width}) : empty(places);
  const bool counts = count_ties && !lines;
  const Tensor ties = counts ? empty(places) : empty({0});
  if (s.pixels() == 0) return {first, second, ties};
  const SurveyArgs args = {s,      map_of(x), floats(f.coefficients), f.kind, mutable_floats(first), mutable_floats(second),
                           counts ? mutable_floats(ties) : nullptr};
  const int64_t tasks = lines ? at_most(threads(), s.channels) : at_least_one(at_most(threads(), s.pixels() / 64));
  run(tasks, chosen->survey_scratch(s), [&](int64_t n, float* scratch) { chosen->survey(args, scratch, n, tasks); });
  return {first, second, ties};
}

// The gradients of x, feature_weight (D [C, T, T], in double precision) and feature_bias (S [C, T], too). Gates: from those of the largest (already shared among ties) and of
// each feature. Lines: from those of each feature by its row and by its column.
std::tuple<Tensor, Tensor, Tensor> survey_backward(const Tensor& largest_, const Tensor& grad_first_,
                                                   const Tensor& grad_second_, const Tensor& x, const Tensor& feature_weight,
                                                   const Tensor& feature_bias, MaybeTensor centre,
                                                   std::vector<int64_t> window, int64_t kind) {
  const Features f(x, feature_weight, feature_bias, centre, window, kind, 1, 1);
  const Shape& s = f.shape;
  const int64_t c = s.channels, t = s.taps();
  const bool lines = f.kind == Attention::lines;
  const Tensor largest = lines ? largest_ : f.checked_places(largest_, "largest");
  const Tensor grad_first = lines ? f.checked_first(grad_first_, "grad_first") : f.checked_places(grad_first_, "grad_first");
  const Tensor grad_second = f.checked_second(grad_second_, "grad_second");
  const Tensor grad_x = empty_map(s.batch, c, s.height, s.width, channels_last(x));
  std::memset(grad_x.data_ptr(), 0, sizeof(float) * grad_x.numel());
  const Tensor sum = zeros({c, t}, ScalarType::Double), outer = zeros({c, t, t}, ScalarType::Double);
  if (s.pixels() > 0) {
    const SurveyBackwardArgs args = {s,
                                     map_of(x),
                                     floats(f.coefficients),
                                     f.kind,
                                     lines ? nullptr : floats(largest),
                                     floats(grad_first),
                                     floats(grad_second),
                                     mutable_map_of(grad_x),
                                     mutable_doubles(sum),
                                     mutable_doubles(outer)};
    const int64_t tasks = at_most(threads(), c);
    run(tasks, chosen->survey_backward_scratch(s),
        [&](int64_t n, float* scratch) { chosen->survey_backward(args, scratch, n, tasks); });
  }
  return {grad_x, outer, sum};
}

// The features times given gates, contracted. Gates: first [B, C], second [B, T, h, w]; lines: first [B, C, kh, h], second
// [B, C, kw, w].
Tensor contract_gated(const Tensor& x, const Tensor& feature_weight, const Tensor& feature_bias, MaybeTensor centre,
                      const Tensor& first_, const Tensor& second_, const Tensor& weight, MaybeTensor bias,
                      std::vector<int64_t> window, int64_t groups, int64_t kind, MaybeTensor scale, MaybeTensor shift,
                      int64_t act) {
  const Features f(x, feature_weight, feature_bias, centre, window, kind, weight.size(0), groups);
  const Tensor first = f.checked_first(first_, "first"), second = f.checked_second(second_, "second");
  const Tensor kernel = dense_weight(weight, f.shape);
  const EpilogueTensors epilogue(bias, scale, shift, act, f.shape.out_channels);
  return contract_features(x, f.shape, f.coefficients, kernel, epilogue.view(), {f.kind, floats(first), floats(second)});
}

// The gradients of x, feature_weight (D), feature_bias (S), first, second and weight.
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> contract_gated_backward(
    const Tensor& grad_out, const Tensor& x, const Tensor& feature_weight, const Tensor& feature_bias, MaybeTensor centre,
    const Tensor& first_, const Tensor& second_, const Tensor& weight, std::vector<int64_t> window, int64_t groups,
    int64_t kind) {
  const Features f(x, feature_weight, feature_bias, centre, window, kind, weight.size(0), groups);
  const Shape& s = f.shape;
  const Tensor first = f.checked_first(first_, "first"), second = f.checked_second(second_, "second");
  const Tensor kernel = dense_weight(weight, s);
  check(grad_out, "grad_out", ScalarType::Float, {s.batch, s.out_channels, s.out_height, s.out_width});
  const Shares shares(s);
  // Of the places' gradient each share of the channels makes its own part.
  const int64_t parts = f.kind == Attention::gates ? shares.tasks / shares.splits : 1;
  const std::vector<int64_t> sizes = {second.sizes().begin(), second.sizes().end()};
  std::vector<int64_t> part_sizes = sizes;
  part_sizes.insert(part_sizes.begin(), parts);
  const std::vector<int64_t> first_sizes = {first.sizes().begin(), first.sizes().end()};
  const Tensor grad_first = zeros(first_sizes), grad_second = zeros(part_sizes);
  const Sums sums = differentiate(grad_out, x, f, f.coefficients, kernel, {f.kind, floats(first), floats(second)},
                                  {mutable_floats(grad_first), mutable_floats(grad_second)}, shares, true);
  return {sums.grad_x,
          sums.outer,
          sums.sum,
          grad_first,
          first_of<float>(grad_second, sizes, parts, ScalarType::Float),
          sums.grad_weight};
}

STABLE_TORCH_LIBRARY_IMPL(rfaconv, CPU, m) {
  m.impl("survey_features", TORCH_BOX(&survey_features));
  m.impl("survey_backward", TORCH_BOX(&survey_backward));
  m.impl("contract_gated", TORCH_BOX(&contract_gated));
  m.impl("contract_gated_backward", TORCH_BOX(&contract_gated_backward));
}

}  // namespace
}  // namespace rfa

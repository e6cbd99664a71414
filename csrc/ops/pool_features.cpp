// What RFCBAMConv and RFCAConv look at: features pooled over the channels, or over the rows and columns of their map.
#include <tuple>

#include "features.h"

namespace rfa {
namespace {

// Over the channels: the largest and the mean feature, [B, T, h, w], and how many channels have the largest (if wanted).
// Else the means over the rows and the columns of the map of taps, [B, C, kh, h] and [B, C, kw, w], and nothing.
std::tuple<Tensor, Tensor, Tensor> pool_features(const Tensor& x, const Tensor& feature_weight, const Tensor& feature_bias,
                                                 const Tensor& center, Pair stride, Pair padding, Pair dilation,
                                                 bool over_channels, bool count_ties) {
  const Features f(x, feature_weight, feature_bias, center, stride, padding, dilation, 1, 1);
  const Shape& s = f.shape;
  const std::vector<int64_t> places = {s.batch, s.taps(), s.out_height, s.out_width};
  const Tensor first = over_channels ? empty(places) : zeros({s.batch, s.channels, s.kernel_h, s.out_height});
  const Tensor second = over_channels ? empty(places) : zeros({s.batch, s.channels, s.kernel_w, s.out_width});
  const bool counts = count_ties && over_channels;
  const Tensor ties = counts ? empty(places) : empty({0});
  if (s.pixels() == 0) return {first, second, ties};
  const SurveyArgs args = {s, map_of(x), floats(f.coefficients), over_channels ? Attention::gates : Attention::lines,
                           mutable_floats(first), mutable_floats(second), counts ? mutable_floats(ties) : nullptr};
  const int64_t tasks = over_channels ? at_least_one(at_most(threads(), s.pixels() / 64)) : at_most(threads(), s.channels);
  run(tasks, chosen->survey_scratch(s), [&](int64_t n, float* scratch) { chosen->survey(args, scratch, n, tasks); });
  return {first, second, ties};
}

// The gradients of x, feature_weight, feature_bias and center. Over the channels: from those of the largest (shared among
// ties already) and of each feature; else from those of each feature by its row and by its column.
std::tuple<Tensor, Tensor, Tensor, Tensor> pool_features_backward(
    const Tensor& grad_first_, const Tensor& grad_second_, const Tensor& largest_, const Tensor& x,
    const Tensor& feature_weight, const Tensor& feature_bias, const Tensor& center, Pair stride, Pair padding, Pair dilation,
    bool over_channels) {
  const Features f(x, feature_weight, feature_bias, center, stride, padding, dilation, 1, 1);
  const Shape& s = f.shape;
  const int64_t c = s.channels, t = s.taps();
  const auto places = [&](const Tensor& p, const char* name) { return dense(p, name, {s.batch, t, s.out_height, s.out_width}); };
  const Tensor largest = over_channels ? places(largest_, "largest") : largest_;
  const Tensor grad_first = over_channels ? places(grad_first_, "grad_first")
                                          : dense(grad_first_, "grad_first", {s.batch, c, s.kernel_h, s.out_height});
  const Tensor grad_second = over_channels ? places(grad_second_, "grad_second")
                                           : dense(grad_second_, "grad_second", {s.batch, c, s.kernel_w, s.out_width});
  const Tensor grad_x = empty_map(s.batch, c, s.height, s.width, channels_last(x));
  std::memset(grad_x.data_ptr(), 0, sizeof(float) * grad_x.numel());
  const Tensor sum = zeros({c * t}, ScalarType::Double), outer = zeros({c * t, 1, s.kernel_h, s.kernel_w}, ScalarType::Double);
  if (s.pixels() > 0) {
    const SurveyBackwardArgs args = {s,
                                     map_of(x),
                                     floats(f.coefficients),
                                     over_channels ? Attention::gates : Attention::lines,
                                     over_channels ? floats(largest) : nullptr,
                                     floats(grad_first),
                                     floats(grad_second),
                                     mutable_map_of(grad_x),
                                     mutable_doubles(sum),
                                     mutable_doubles(outer)};
    const int64_t tasks = at_most(threads(), c);
    run(tasks, chosen->survey_backward_scratch(s),
        [&](int64_t n, float* scratch) { chosen->survey_backward(args, scratch, n, tasks); });
  }
  const Tensor grad_center = f.center_gradient(sum, outer);
  return {grad_x, outer, sum, grad_center};
}

STABLE_TORCH_LIBRARY_IMPL(rfaconv, CPU, m) {
  m.impl("pool_features", TORCH_BOX(&pool_features));
  m.impl("pool_features_backward", TORCH_BOX(&pool_features_backward));
}

}  // namespace
}  // namespace rfa

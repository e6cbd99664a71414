// The receptive-field convolution: features, weighed by an attention, contracted; and back.
#include <tuple>

#include "contraction.h"

namespace rfa {
namespace {

// Which attention it is says which operands are given: tap_weight [C, T] (a softmax over the taps of tap_weight times the
// mean of the receptive field); channel_gate [B, C] and spatial_gate [B, T, h, w]; or row_gate [B, C, kh, h] and col_gate
// [B, C, kw, w].
struct Operands {
  Attention kind;
  Tensor first, second;

  Operands(const Shape& s, const MaybeTensor& tap_weight, const MaybeTensor& channel_gate, const MaybeTensor& spatial_gate,
           const MaybeTensor& row_gate, const MaybeTensor& col_gate)
      : kind(tap_weight ? Attention::softmax : channel_gate ? Attention::gates : Attention::lines),
        first(kind == Attention::softmax ? dense(*tap_weight, "tap_weight", {s.channels, s.taps()})
              : kind == Attention::gates ? dense(*channel_gate, "channel_gate", {s.batch, s.channels})
                                         : dense(given(row_gate), "row_gate", {s.batch, s.channels, s.kernel_h, s.out_height})),
        second(kind == Attention::softmax ? empty({0})
               : kind == Attention::gates ? dense(given(spatial_gate), "spatial_gate", {s.batch, s.taps(), s.out_height, s.out_width})
                                          : dense(given(col_gate), "col_gate", {s.batch, s.channels, s.kernel_w, s.out_width})) {
    STD_TORCH_CHECK(bool(tap_weight) + bool(channel_gate) + bool(spatial_gate) + bool(row_gate) + bool(col_gate) ==
                        (kind == Attention::softmax ? 1 : 2),
                    WANTED);
  }

  Gates gates() const { return {kind, kind == Attention::softmax ? nullptr : floats(first), kind == Attention::softmax ? nullptr : floats(second)}; }

 private:
  static constexpr const char* WANTED = "give tap_weight, or channel_gate and spatial_gate, or row_gate and col_gate";
  static const Tensor& given(const MaybeTensor& gate) {
    STD_TORCH_CHECK(gate.has_value(), WANTED);
    return *gate;
  }
};

const float* taps_of(const MaybeTensor& tap_weight, Tensor& kept, const Tensor& x, const Tensor& feature_weight) {
  if (!tap_weight) return nullptr;
  STD_TORCH_CHECK(x.dim() == 4 && feature_weight.dim() == 4, "input and feature_weight must have 4 dimensions");
  kept = dense(*tap_weight, "tap_weight", {x.size(1), product({feature_weight.size(2), feature_weight.size(3)})});
  return floats(kept);
}

int64_t outputs_of(const Tensor& weight) {
  STD_TORCH_CHECK(weight.dim() == 4, "weight must have 4 dimensions, has ", weight.dim());
  return weight.size(0);
}

Tensor rf_conv2d(const Tensor& x, const Tensor& feature_weight, const Tensor& feature_bias, const Tensor& center,
                 MaybeTensor tap_weight, MaybeTensor channel_gate, MaybeTensor spatial_gate, MaybeTensor row_gate,
                 MaybeTensor col_gate, const Tensor& weight, MaybeTensor bias, Pair stride, Pair padding, Pair dilation,
                 int64_t groups, MaybeTensor scale, MaybeTensor shift, int64_t act) {
  Tensor taps;
  const Features f(x, feature_weight, feature_bias, center, stride, padding, dilation, outputs_of(weight), groups,
                   taps_of(tap_weight, taps, x, feature_weight));
  const Operands operands(f.shape, tap_weight, channel_gate, spatial_gate, row_gate, col_gate);
  const Tensor kernel = dense_weight(weight, f.shape);
  const EpilogueTensors epilogue(bias, scale, shift, act, f.shape.out_channels);
  return contract(x, f, kernel, epilogue.view(), operands.gates());
}

// The gradients of input (nothing where it is not wanted), feature_weight, feature_bias, center, weight, and of the first
// and the second operand (nothing where there is one).
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> rf_conv2d_backward(
    const Tensor& grad_out, const Tensor& x, const Tensor& feature_weight, const Tensor& feature_bias, const Tensor& center,
    MaybeTensor tap_weight, MaybeTensor channel_gate, MaybeTensor spatial_gate, MaybeTensor row_gate, MaybeTensor col_gate,
    const Tensor& weight, Pair stride, Pair padding, Pair dilation, int64_t groups, bool input_too) {
  Tensor taps;
  const Features f(x, feature_weight, feature_bias, center, stride, padding, dilation, outputs_of(weight), groups,
                   taps_of(tap_weight, taps, x, feature_weight));
  const Shape& s = f.shape;
  const Operands operands(s, tap_weight, channel_gate, spatial_gate, row_gate, col_gate);
  const Tensor kernel = dense_weight(weight, s);
  check(grad_out, "grad_out", ScalarType::Float, {s.batch, s.out_channels, s.out_height, s.out_width});
  const Shares shares(s);
  // Each share of the images makes its own part of the taps' gradient; each share of the channels of the spatial gate's.
  const bool softmax = operands.kind == Attention::softmax;
  const int64_t first_parts = softmax ? shares.splits : 1;
  const int64_t second_parts = operands.kind == Attention::gates ? shares.tasks / shares.splits : 1;
  const auto parts_of = [](const Tensor& one, int64_t parts) {
    std::vector<int64_t> sizes = {one.sizes().begin(), one.sizes().end()};
    sizes.insert(sizes.begin(), parts);
    return zeros(sizes);
  };
  const Tensor grad_first = parts_of(operands.first, first_parts), grad_second = parts_of(operands.second, second_parts);
  const Sums sums = differentiate(grad_out, x, f, kernel, operands.gates(),
                                  {mutable_floats(grad_first), softmax ? nullptr : mutable_floats(grad_second)}, shares, input_too);
  const auto sum_of = [](const Tensor& parts, const Tensor& one) {
    return first_of<float>(parts, {one.sizes().begin(), one.sizes().end()}, parts.size(0), ScalarType::Float);
  };
  const Tensor grad_center = f.center_gradient(sums.sum, sums.outer);
  return {sums.grad_x, sums.outer, sums.sum, grad_center, sums.grad_weight, sum_of(grad_first, operands.first), sum_of(grad_second, operands.second)};
}

STABLE_TORCH_LIBRARY_IMPL(rfaconv, CPU, m) {
  m.impl("rf_conv2d", TORCH_BOX(&rf_conv2d));
  m.impl("rf_conv2d_backward", TORCH_BOX(&rf_conv2d_backward));
}

}  // namespace
}  // namespace rfa

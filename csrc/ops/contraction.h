// What all receptive-field convolutions share once their features and attention are known: contracting them, and back.
#pragma once

#include "features.h"

namespace rfa {

inline Tensor contract(const Tensor& x, const Features& f, const Tensor& weight, const Epilogue& epilogue, const Gates& gates) {
  const Shape& s = f.shape;
  const Tensor out = empty_map(s.batch, s.out_channels, s.out_height, s.out_width, channels_last(x));
  if (s.pixels() == 0) return out;
  ForwardArgs args = {s, map_of(x), mutable_map_of(out), floats(f.coefficients), floats(weight), epilogue, gates};
  if (s.out_channels == 1) args.out.column = 1, args.out.row = s.out_width;  // either format: they are the same
  const int64_t tasks = at_least_one(at_most(threads(), s.pixels() / 64));
  run(tasks, chosen->forward_scratch(s), [&](int64_t n, float* scratch) { chosen->forward(args, scratch, n, tasks); });
  return out;
}

struct EpilogueTensors {
  MaybeTensor bias, scale, shift;
  Act act;

  EpilogueTensors(MaybeTensor b, MaybeTensor sc, MaybeTensor sh, int64_t a, int64_t channels) : act(Act(a)) {
    if (b) bias = dense(*b, "bias", {channels});
    if (sc) scale = dense(*sc, "scale", {channels});
    if (sh) shift = dense(*sh, "shift", {channels});
    STD_TORCH_CHECK(a >= 0 && a <= 2, "act must be 0, 1 or 2");
  }
  Epilogue view() const {
    return {bias ? floats(*bias) : nullptr, scale ? floats(*scale) : nullptr, shift ? floats(*shift) : nullptr, act};
  }
};

inline Tensor dense_weight(const Tensor& weight, const Shape& s) {
  return dense(weight, "weight", {s.out_channels, s.channels / s.groups, s.kernel_h, s.kernel_w});
}

// How the backward pass is shared out: channels first, images where there are too few of them.
struct Shares {
  int64_t blocks_a_group, splits, tasks;

  explicit Shares(const Shape& s) {
    const int64_t channels = s.channels / s.groups, most = block_channels(s.taps());
    blocks_a_group = (channels + most - 1) / most;
    // Smaller blocks down to 8 channels before images are split, because splits need their own sums.
    const int64_t wanted = at_most((threads() + s.groups - 1) / s.groups, at_least_one(channels / 8));
    if (blocks_a_group < wanted) blocks_a_group = wanted;
    const int64_t blocks = blocks_a_group * s.groups;
    splits = at_least_one(at_most(s.batch, threads() / blocks));
    tasks = splits * at_most(blocks, at_least_one(threads() / splits));
  }
};

// What every backward pass over the contraction returns besides the gradients of its attention: those of input (with fixed
// statistics) and weight, and the sums S [C*T] and D [C*T, 1, kh, kw].
struct Sums {
  Tensor grad_x, grad_weight, sum, outer;
};

template <class Number>
Tensor first_of(const Tensor& all, std::vector<int64_t> sizes, int64_t splits, ScalarType dtype) {
  const Tensor one = empty(std::move(sizes), dtype);
  const int64_t count = one.numel();
  const Number* values = static_cast<const Number*>(all.data_ptr());
  Number* to = static_cast<Number*>(one.data_ptr());
  std::memcpy(to, values, sizeof(Number) * count);
  for (int64_t n = 1; n < splits; ++n)  // in order, so that the same bits come out every time
    for (int64_t i = 0; i < count; ++i) to[i] += values[n * count + i];
  return one;
}

inline Sums differentiate(const Tensor& grad_out, const Tensor& x, const Features& f, const Tensor& kernel, const Gates& gates, const GateGradients& gate_grads, const Shares& shares,
                   bool input_too) {
  const Shape& s = f.shape;
  const int64_t c = s.channels, t = s.taps(), n = shares.splits;
  const std::vector<int64_t> filter_sizes = {c * t, 1, s.kernel_h, s.kernel_w};
  const std::vector<int64_t> weight_sizes = {s.out_channels, c / s.groups, s.kernel_h, s.kernel_w};
  const Tensor grad_x = input_too ? empty_map(s.batch, c, s.height, s.width, channels_last(x)) : empty({0});
  if (input_too) std::memset(grad_x.data_ptr(), 0, sizeof(float) * grad_x.numel());
  if (s.pixels() == 0)
    return {grad_x, zeros(weight_sizes), zeros({c * t}, ScalarType::Double), zeros(filter_sizes, ScalarType::Double)};
  const Tensor grad = even(grad_out);
  const Tensor grad_weight = n == 1 ? empty(weight_sizes) : empty({n, kernel.numel()});
  const Tensor sum = empty({n, c, t}, ScalarType::Double), outer = empty({n, c, t, t}, ScalarType::Double);
  const BackwardArgs args = {s,
                             map_of(x),
                             map_of(grad),
                             floats(f.coefficients),
                             floats(kernel),
                             gates,
                             input_too ? mutable_map_of(grad_x) : Map{},
                             mutable_floats(grad_weight),
                             gate_grads,
                             mutable_doubles(sum),
                             mutable_doubles(outer),
                             n,
                             shares.blocks_a_group};
  run(shares.tasks, chosen->backward_scratch(s),
      [&](int64_t index, float* scratch) { chosen->backward(args, scratch, index, shares.tasks); });
  return {grad_x, n == 1 ? grad_weight : first_of<float>(grad_weight, weight_sizes, n, ScalarType::Float),
          first_of<double>(sum, {c * t}, n, ScalarType::Double), first_of<double>(outer, filter_sizes, n, ScalarType::Double)};
}

}  // namespace rfa

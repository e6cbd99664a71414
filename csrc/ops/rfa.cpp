// RFAConv: a softmax over the taps.
#include <tuple>

#include "contraction.h"

namespace rfa {
namespace {

std::tuple<Tensor, Tensor, Tensor> rfa_forward(const Tensor& x, const Tensor& feature_weight, const Tensor& attention_weight,
                                       const Tensor& weight, MaybeTensor bias, MaybeTensor norm_weight,
                                       MaybeTensor norm_bias, MaybeTensor mean, MaybeTensor var, MaybeTensor moments,
                                       int64_t count, double eps, std::vector<int64_t> window, int64_t groups,
                                       MaybeTensor scale, MaybeTensor shift, int64_t act) {
  const Parameters p(x, feature_weight, norm_weight, norm_bias, mean, var, moments, count, eps, window, weight.size(0), groups);
  const Tensor attention = dense(attention_weight, "attention_weight", {p.shape.channels, p.shape.taps()});
  const Tensor kernel = dense_weight(weight, p.shape);
  const EpilogueTensors epilogue(bias, scale, shift, act, p.shape.out_channels);
  const auto statistics = p.statistics();
  const Norm norm = p.norm(statistics);
  const Tensor coefficients = p.coefficients(norm, &attention, centre_of(statistics));
  const Tensor out = contract_features(x, p.shape, coefficients, kernel, epilogue.view(), {Attention::softmax, nullptr, nullptr});
  if (!moments) return {out, empty({0}), empty({0})};
  return {out, as_floats(norm.mean), as_floats(norm.var)};
}

// Gradients of input (that of fixed statistics), attention_weight and weight; the sums S and D.
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> rfa_backward(
    const Tensor& grad_out, const Tensor& x, const Tensor& feature_weight, const Tensor& attention_weight,
    const Tensor& weight, MaybeTensor norm_weight, MaybeTensor norm_bias, MaybeTensor mean, MaybeTensor var,
    MaybeTensor moments, int64_t count, double eps, std::vector<int64_t> window, int64_t groups, bool input_too) {
  const Parameters p(x, feature_weight, norm_weight, norm_bias, mean, var, moments, count, eps, window, weight.size(0), groups);
  const Shape& s = p.shape;
  const int64_t c = s.channels, t = s.taps();
  const Tensor attention = dense(attention_weight, "attention_weight", {c, t});
  const Tensor kernel = dense_weight(weight, s);
  check(grad_out, "grad_out", ScalarType::Float, {s.batch, s.out_channels, s.out_height, s.out_width});
  const auto statistics = p.statistics();
  const Tensor coefficients = p.coefficients(p.norm(statistics), &attention, centre_of(statistics));
  const Shares shares(s);
  const Tensor grad_attention = zeros({shares.splits, c, t});
  const Sums sums = differentiate(grad_out, x, p, coefficients, kernel, {Attention::softmax, nullptr, nullptr},
                                  {mutable_floats(grad_attention), nullptr}, shares, input_too);
  return {sums.grad_x, first_of<float>(grad_attention, {c, t}, shares.splits, ScalarType::Float), sums.grad_weight, sums.sum,
          sums.outer};
}

STABLE_TORCH_LIBRARY_IMPL(rfaconv, CPU, m) {
  m.impl("rfa", TORCH_BOX(&rfa_forward));
  m.impl("rfa_backward", TORCH_BOX(&rfa_backward));
}

}  // namespace
}  // namespace rfa

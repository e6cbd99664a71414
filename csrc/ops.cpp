// The operators as PyTorch sees them: checks, memory from its allocator, threads from its pool, the kernels of this machine.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <cmath>
#include <cstring>
#include <optional>
#include <tuple>
#include <vector>

#include "problem.h"

namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using MaybeTensor = std::optional<Tensor>;
using namespace rfa;

// ---- Which kernels -------------------------------------------------------------------------------------------------

const Kernels* find_kernels(const char* name) {
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
  for (const Kernels* kernels : {avx512 ? &avx512_kernels() : nullptr, avx2 ? &avx2_kernels() : nullptr})
    if (kernels && (!name || !std::strcmp(name, kernels->name))) return kernels;
#endif
  return !name || !std::strcmp(name, baseline_kernels().name) ? &baseline_kernels() : nullptr;
}

const Kernels* chosen = find_kernels(nullptr);

// ---- Checks and sizes ----------------------------------------------------------------------------------------------

void check(const Tensor& t, const char* name, ScalarType dtype, std::initializer_list<int64_t> sizes) {
  STD_TORCH_CHECK(t.is_cpu(), name, " must be on the CPU");
  STD_TORCH_CHECK(t.scalar_type() == dtype, name, " has the wrong dtype");
  STD_TORCH_CHECK(t.dim() == int64_t(sizes.size()), name, " must have ", sizes.size(), " dimensions, has ", t.dim());
  int64_t n = 0;
  for (int64_t size : sizes) {
    STD_TORCH_CHECK(size < 0 || t.size(n) == size, name, " must have size ", size, " in dimension ", n, ", has ", t.size(n));
    ++n;
  }
}

// A contiguous tensor of floats (doubles) of these sizes; `t` itself if it is one.
Tensor dense(const Tensor& t, const char* name, std::initializer_list<int64_t> sizes, ScalarType dtype = ScalarType::Float) {
  check(t, name, dtype, sizes);
  return t.is_contiguous() ? t : torch::stable::contiguous(t);
}

const float* floats(const Tensor& t) { return static_cast<const float*>(t.data_ptr()); }
float* mutable_floats(const Tensor& t) { return static_cast<float*>(t.data_ptr()); }
const double* doubles(const Tensor& t) { return static_cast<const double*>(t.data_ptr()); }
double* mutable_doubles(const Tensor& t) { return static_cast<double*>(t.data_ptr()); }

Tensor empty(std::vector<int64_t> sizes, ScalarType dtype = ScalarType::Float) {
  return torch::stable::empty(torch::headeronly::IntHeaderOnlyArrayRef(sizes.data(), sizes.size()), dtype);
}
Tensor zeros(std::vector<int64_t> sizes, ScalarType dtype = ScalarType::Float) {
  Tensor t = empty(std::move(sizes), dtype);
  std::memset(t.data_ptr(), 0, t.numel() * (dtype == ScalarType::Double ? sizeof(double) : sizeof(float)));
  return t;
}

// Doubles as floats, in another shape.
Tensor narrow(const Tensor& values, std::vector<int64_t> sizes) {
  const Tensor t = empty(std::move(sizes));
  for (int64_t n = 0; n < t.numel(); ++n) mutable_floats(t)[n] = float(doubles(values)[n]);
  return t;
}

constexpr int64_t MOST = int64_t(1) << 31;  // of any size: their products of two then fit

int64_t product(std::initializer_list<int64_t> factors) {
  int64_t result = 1;
  for (int64_t factor : factors)
    STD_TORCH_CHECK(!__builtin_mul_overflow(result, factor, &result), "sizes overflow");
  return result;
}

// window: kernel_size, stride, padding, dilation, each vertical and horizontal.
Shape shape_of(const Tensor& x, const std::vector<int64_t>& window, int64_t out_channels, int64_t groups) {
  check(x, "input", ScalarType::Float, {-1, -1, -1, -1});
  STD_TORCH_CHECK(window.size() == 8, "window must have 8 numbers, has ", window.size());
  for (size_t n = 0; n < 8; ++n) {
    const bool pads = n == 4 || n == 5;
    STD_TORCH_CHECK(window[n] >= (pads ? 0 : 1) && window[n] < (1 << 20), "window has ", window[n], " at ", n);
  }
  for (int n = 0; n < 4; ++n) STD_TORCH_CHECK(x.size(n) < MOST, "input is too large");
  Shape s;
  s.batch = x.size(0), s.channels = x.size(1), s.height = x.size(2), s.width = x.size(3);
  s.out_channels = out_channels, s.groups = groups;
  s.kernel_h = int(window[0]), s.kernel_w = int(window[1]), s.stride_h = int(window[2]), s.stride_w = int(window[3]);
  s.pad_h = int(window[4]), s.pad_w = int(window[5]), s.dilation_h = int(window[6]), s.dilation_w = int(window[7]);
  STD_TORCH_CHECK(window[0] * window[1] <= 128 && window[3] <= 32, "the CPU kernel takes at most 128 taps and a stride of 32");
  s.out_height = (s.height + 2 * window[4] - window[6] * (window[0] - 1) - 1) / window[2] + 1;
  s.out_width = (s.width + 2 * window[5] - window[7] * (window[1] - 1) - 1) / window[3] + 1;
  STD_TORCH_CHECK(s.height + 2 * window[4] > window[6] * (window[0] - 1) && s.width + 2 * window[5] > window[7] * (window[1] - 1),
                  "the kernel is larger than the padded input");
  STD_TORCH_CHECK(groups >= 1 && s.channels >= 1 && out_channels >= 1 && s.channels % groups == 0 && out_channels % groups == 0,
                  "groups must divide the channels");
  STD_TORCH_CHECK(out_channels < MOST, "too many output channels");
  product({s.batch, s.channels, s.height, s.width, 8});
  product({s.batch, out_channels, s.out_height, s.out_width, 8});
  product({s.channels, s.taps(), s.taps(), 8});
  product({out_channels, s.channels, s.taps(), 8});
  // Offsets in a tile's rows are ints: those of 192 pixels.
  STD_TORCH_CHECK(product({s.kernel_h, 194, s.stride_w, s.out_width + product({s.kernel_w, s.dilation_w})}) < MOST,
                  "the input is too wide for the CPU kernel");
  return s;
}

ConstMap map_of(const Tensor& x) { return {floats(x), x.stride(0), x.stride(1), x.stride(2), x.stride(3)}; }
Map mutable_map_of(const Tensor& x) { return {mutable_floats(x), x.stride(0), x.stride(1), x.stride(2), x.stride(3)}; }

// Whether channels, not columns, are neighbours in memory.
bool channels_last(const Tensor& x) { return x.stride(1) == 1 && x.size(1) > 1 && x.size(2) * x.size(3) > 1; }

Tensor empty_map(int64_t batch, int64_t channels, int64_t height, int64_t width, bool last) {
  const std::vector<int64_t> sizes = {batch, channels, height, width};
  return torch::stable::empty(torch::headeronly::IntHeaderOnlyArrayRef(sizes.data(), 4), ScalarType::Float, std::nullopt,
                              std::nullopt, std::nullopt,
                              last ? torch::headeronly::MemoryFormat::ChannelsLast : torch::headeronly::MemoryFormat::Contiguous);
}

// A gradient whose pixels lie evenly: as it is, or a contiguous copy (of one that was expanded, say).
Tensor even(const Tensor& grad) {
  const bool planes = grad.stride(3) == 1 && grad.stride(2) == grad.size(3);
  const bool pixels = grad.stride(1) == 1 && grad.stride(2) == grad.size(3) * grad.stride(3) && grad.stride(3) >= grad.size(1);
  return planes || pixels ? grad : torch::stable::contiguous(grad);
}

// ---- Running tasks -------------------------------------------------------------------------------------------------

// Runs task(index, scratch) for all indices below `tasks`, each with scratch of its own.
template <class Task>
void run(int64_t tasks, int64_t scratch_floats, Task task) {
  const int64_t each = (scratch_floats + 31) / 16 * 16;
  const Tensor scratch = empty({tasks * each});
  float* start = mutable_floats(scratch);
  start += (64 - reinterpret_cast<uintptr_t>(start) % 64) % 64 / sizeof(float);
  torch::stable::parallel_for(0, tasks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) task(n, start + n * each);
  });
}

int64_t threads() { return torch::stable::get_num_threads(); }
int64_t at_most(int64_t a, int64_t b) { return a < b ? a : b; }
int64_t at_least_one(int64_t a) { return a < 1 ? 1 : a; }

// ---- Batch norm ----------------------------------------------------------------------------------------------------

// y = scale * (filter . patch) + offset, the batch norm folded; of all C*T features.
struct Norm {
  std::vector<double> mean, var, inverse, scale, offset;

  void fold(const MaybeTensor& weight, const MaybeTensor& bias, double eps) {
    const size_t count = mean.size();
    inverse.resize(count), scale.resize(count), offset.resize(count);
    for (size_t n = 0; n < count; ++n) {
      inverse[n] = 1.0 / std::sqrt(var[n] + eps);
      scale[n] = inverse[n] * (weight ? floats(*weight)[n] : 1.0);
      offset[n] = (bias ? floats(*bias)[n] : 0.0) - mean[n] * scale[n];
    }
  }
};

// First moments and covariance of the patches, from their sums over `count` patches.
struct PatchStatistics {
  int64_t channels, taps;
  double count;
  std::vector<double> mean, covariance;

  PatchStatistics(const Tensor& moments, int64_t c, int64_t t, double n) : channels(c), taps(t), count(n) {
    mean.resize(c * t), covariance.resize(c * t * t);
    const double* sums = doubles(moments);
    for (int64_t channel = 0; channel < c; ++channel) {
      const double* first = sums + channel * (t + t * t);
      double* m = &mean[channel * t];
      for (int64_t s = 0; s < t; ++s) m[s] = first[s] / n;
      for (int64_t s = 0; s < t; ++s)
        for (int64_t r = 0; r < t; ++r) covariance[(channel * t + s) * t + r] = first[t + s * t + r] / n - m[s] * m[r];
    }
  }

  // product[t, s] = sum over r of filter[t, r] * covariance[r, s], for one channel.
  void times_covariance(const float* filter, int64_t channel, double* product) const {
    const double* matrix = &covariance[channel * taps * taps];
    for (int64_t t = 0; t < taps; ++t) {
      double* row = product + t * taps;
      for (int64_t s = 0; s < taps; ++s) row[s] = 0.0;
      for (int64_t r = 0; r < taps; ++r)
        for (int64_t s = 0; s < taps; ++s) row[s] += filter[t * taps + r] * matrix[r * taps + s];
    }
  }

  Norm norm(const float* filters) const {
    Norm norm;
    norm.mean.resize(channels * taps), norm.var.resize(channels * taps);
    torch::stable::parallel_for(0, channels, 32, [&](int64_t begin, int64_t end) {
      std::vector<double> product(taps * taps);
      for (int64_t c = begin; c < end; ++c) {
        const float* filter = filters + c * taps * taps;
        times_covariance(filter, c, product.data());
        for (int64_t t = 0; t < taps; ++t) {
          double m = 0.0, v = 0.0;
          for (int64_t s = 0; s < taps; ++s) {
            m += filter[t * taps + s] * mean[c * taps + s];
            v += filter[t * taps + s] * product[t * taps + s];
          }
          norm.mean[c * taps + t] = m;
          norm.var[c * taps + t] = v < 0.0 ? 0.0 : v;
        }
      }
    });
    return norm;
  }
};

Norm fixed_norm(const Tensor& mean, const Tensor& var) {
  const float *m = floats(mean), *v = floats(var);
  Norm norm;
  norm.mean.assign(m, m + mean.numel());
  norm.var.assign(v, v + var.numel());
  return norm;
}

struct Parameters {
  Shape shape;
  Tensor feature_weight;
  MaybeTensor norm_weight, norm_bias, mean, var, moments;
  double eps, count;

  Parameters(const Tensor& x, const Tensor& feature_weight_, MaybeTensor norm_weight_, MaybeTensor norm_bias_,
             MaybeTensor mean_, MaybeTensor var_, MaybeTensor moments_, int64_t count_, double eps_,
             const std::vector<int64_t>& window, int64_t out_channels, int64_t groups)
      : shape(shape_of(x, window, out_channels, groups)), eps(eps_), count(double(count_)) {
    const int64_t c = shape.channels, t = shape.taps(), features = c * t;
    feature_weight = dense(feature_weight_, "feature_weight", {features, 1, shape.kernel_h, shape.kernel_w});
    if (norm_weight_) norm_weight = dense(*norm_weight_, "norm_weight", {features});
    if (norm_bias_) norm_bias = dense(*norm_bias_, "norm_bias", {features});
    if (moments_) {
      moments = dense(*moments_, "moments", {c, t + t * t}, ScalarType::Double);
      STD_TORCH_CHECK(count_ >= 1, "count must be at least 1");
    } else {
      STD_TORCH_CHECK(mean_ && var_, "mean and var, or moments, must be given");
      mean = dense(*mean_, "mean", {features});
      var = dense(*var_, "var", {features});
    }
  }

  std::optional<PatchStatistics> statistics() const {
    if (!moments) return std::nullopt;
    return PatchStatistics(*moments, shape.channels, shape.taps(), count);
  }

  Norm norm(const std::optional<PatchStatistics>& statistics) const {
    Norm result = statistics ? statistics->norm(floats(feature_weight)) : fixed_norm(*mean, *var);
    result.fold(norm_weight, norm_bias, eps);
    return result;
  }

  Tensor coefficients(const Norm& norm, const Tensor* attention_weight,
                      const std::optional<PatchStatistics>& statistics = std::nullopt) const {
    const Tensor all = empty({shape.channels * chosen->coefficients(shape.taps())});
    chosen->fold(floats(feature_weight), attention_weight ? floats(*attention_weight) : nullptr, norm.scale.data(),
                 norm.offset.data(), statistics ? statistics->mean.data() : nullptr, shape.channels, shape.taps(),
                 mutable_floats(all));
    return all;
  }
};

Tensor as_floats(const std::vector<double>& values) {
  const Tensor t = empty({int64_t(values.size())});
  for (size_t n = 0; n < values.size(); ++n) mutable_floats(t)[n] = float(values[n]);
  return t;
}

// ---- Operators -----------------------------------------------------------------------------------------------------

// grad_x gains fold(alpha - q patch).
void add_correction(const Tensor& x, const Shape& s, const Tensor& alpha, const Tensor& q, const Tensor& grad_x) {
  const CorrectionArgs args = {s, map_of(x), mutable_map_of(grad_x), floats(alpha), floats(q)};
  const int64_t tasks = at_most(threads(), s.channels);
  run(tasks, chosen->rows_scratch(s), [&](int64_t n, float* scratch) { chosen->correct(args, scratch, n, tasks); });
}

// Sums over all patches of x of the taps and of their products, [C, T + T*T] in double.
Tensor patch_moments(const Tensor& x, std::vector<int64_t> window) {
  const Shape s = shape_of(x, window, 1, 1);
  const Tensor result = zeros({s.channels, s.taps() + s.taps() * s.taps()}, ScalarType::Double);
  const MomentsArgs args = {s, map_of(x), mutable_doubles(result)};
  const int64_t tasks = at_most(threads(), s.channels);
  if (s.pixels() == 0) return result;
  run(tasks, chosen->rows_scratch(s), [&](int64_t n, float* scratch) { chosen->moments(args, scratch, n, tasks); });
  return result;
}

// The gradient of x from that of its moments. A product's share goes to both its factors.
Tensor patch_moments_backward(const Tensor& grad_, const Tensor& x, std::vector<int64_t> window) {
  const Shape s = shape_of(x, window, 1, 1);
  const int64_t c = s.channels, t = s.taps();
  const Tensor grad = dense(grad_, "grad", {c, t + t * t}, ScalarType::Double);
  const Tensor grad_x = empty_map(s.batch, c, s.height, s.width, channels_last(x));
  std::memset(grad_x.data_ptr(), 0, sizeof(float) * grad_x.numel());
  if (s.pixels() == 0) return grad_x;
  const Tensor alpha = empty({c, t}), q = empty({c, t, t});
  for (int64_t channel = 0; channel < c; ++channel) {
    const double *first = doubles(grad) + channel * (t + t * t), *second = first + t;
    for (int64_t r = 0; r < t; ++r) {
      mutable_floats(alpha)[channel * t + r] = float(first[r]);
      for (int64_t u = 0; u < t; ++u)
        mutable_floats(q)[(channel * t + r) * t + u] = float(-second[r * t + u] - second[u * t + r]);
    }
  }
  add_correction(x, s, alpha, q, grad_x);
  return grad_x;
}

Tensor contract_features(const Tensor& x, const Shape& s, const Tensor& coefficients, const Tensor& weight,
                         const Epilogue& epilogue, const Gates& gates) {
  const Tensor out = empty_map(s.batch, s.out_channels, s.out_height, s.out_width, channels_last(x));
  if (s.pixels() == 0) return out;
  ForwardArgs args = {s, map_of(x), mutable_map_of(out), floats(coefficients), floats(weight), epilogue, gates};
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

Tensor dense_weight(const Tensor& weight, const Shape& s) {
  return dense(weight, "weight", {s.out_channels, s.channels / s.groups, s.kernel_h, s.kernel_w});
}

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
  const Tensor coefficients = p.coefficients(norm, &attention, statistics);
  const Tensor out = contract_features(x, p.shape, coefficients, kernel, epilogue.view(), {Attention::softmax, nullptr, nullptr});
  if (!moments) return {out, empty({0}), empty({0})};
  return {out, as_floats(norm.mean), as_floats(norm.var)};
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
// statistics) and weight, and the sums S [C, T] and D [C, T, T].
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

Sums differentiate(const Tensor& grad_out, const Tensor& x, const Parameters& p, const Tensor& coefficients,
                   const Tensor& kernel, const Gates& gates, const GateGradients& gate_grads, const Shares& shares,
                   bool input_too) {
  const Shape& s = p.shape;
  const int64_t c = s.channels, t = s.taps(), n = shares.splits;
  const std::vector<int64_t> weight_sizes = {s.out_channels, c / s.groups, s.kernel_h, s.kernel_w};
  const Tensor grad_x = input_too ? empty_map(s.batch, c, s.height, s.width, channels_last(x)) : empty({0});
  if (input_too) std::memset(grad_x.data_ptr(), 0, sizeof(float) * grad_x.numel());
  if (s.pixels() == 0)
    return {grad_x, zeros(weight_sizes), zeros({c, t}, ScalarType::Double), zeros({c, t, t}, ScalarType::Double)};
  const Tensor grad = even(grad_out);
  const Tensor grad_weight = n == 1 ? empty(weight_sizes) : empty({n, kernel.numel()});
  const Tensor sum = empty({n, c, t}, ScalarType::Double), outer = empty({n, c, t, t}, ScalarType::Double);
  const BackwardArgs args = {s,
                             map_of(x),
                             map_of(grad),
                             floats(coefficients),
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
          first_of<double>(sum, {c, t}, n, ScalarType::Double), first_of<double>(outer, {c, t, t}, n, ScalarType::Double)};
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
  const Tensor coefficients = p.coefficients(p.norm(statistics), &attention, statistics);
  const Shares shares(s);
  const Tensor grad_attention = zeros({shares.splits, c, t});
  const Sums sums = differentiate(grad_out, x, p, coefficients, kernel, {Attention::softmax, nullptr, nullptr},
                                  {mutable_floats(grad_attention), nullptr}, shares, input_too);
  return {sums.grad_x, first_of<float>(grad_attention, {c, t}, shares.splits, ScalarType::Float), sums.grad_weight, sums.sum,
          sums.outer};
}

// From S and D: the gradients of feature_weight, norm_weight and norm_bias; grad_x gains what goes through the statistics.
std::tuple<Tensor, Tensor, Tensor> norm_backward(Tensor grad_x, const Tensor& x, const Tensor& feature_weight,
                                                 MaybeTensor norm_weight, MaybeTensor mean, MaybeTensor var,
                                                 MaybeTensor moments, const Tensor& sum_, const Tensor& outer_,
                                                 int64_t count, double eps, std::vector<int64_t> window) {
  const Parameters p(x, feature_weight, norm_weight, std::nullopt, mean, var, moments, count, eps, window, 1, 1);
  const Shape& s = p.shape;
  const int64_t channels = s.channels, taps = s.taps();
  const Tensor sum_tensor = dense(sum_, "sum", {channels, taps}, ScalarType::Double);
  const Tensor outer_tensor = dense(outer_, "outer", {channels, taps, taps}, ScalarType::Double);
  const double *sums = doubles(sum_tensor), *outers = doubles(outer_tensor);
  const bool input_too = grad_x.numel() > 0;
  if (input_too) check(grad_x, "grad_x", ScalarType::Float, {s.batch, channels, s.height, s.width});
  const auto statistics = p.statistics();
  const Norm norm = p.norm(statistics);

  const Tensor grad_filter = empty({channels * taps, 1, s.kernel_h, s.kernel_w});
  const Tensor grad_scale = empty({channels * taps}), grad_bias = empty({channels * taps});
  const bool corrects = statistics && input_too && s.pixels() > 0;
  const Tensor alpha = empty({corrects ? channels : 0, taps}), q = empty({corrects ? channels : 0, taps, taps});
  torch::stable::parallel_for(0, channels, 32, [&](int64_t begin, int64_t end) {
    std::vector<double> through(taps * taps), d(taps * taps), weight(taps);
    for (int64_t c = begin; c < end; ++c) {
      const float* filter = floats(p.feature_weight) + c * taps * taps;
      const double *sum = sums + c * taps, *outer = outers + c * taps * taps;
      const double *inverse = &norm.inverse[c * taps], *scale = &norm.scale[c * taps];
      if (statistics) statistics->times_covariance(filter, c, through.data());
      for (int64_t t = 0; t < taps; ++t) {
        double along = 0.0;
        for (int64_t r = 0; r < taps; ++r) {
          double value = outer[t * taps + r];
          if (statistics) {  // centred by the rounded mean so far
            const double m = statistics->mean[c * taps + r];
            value -= sum[t] * (m - double(float(m)));
          }
          d[t * taps + r] = value;
          along += filter[t * taps + r] * value;
        }
        const double grad = inverse[t] * (statistics ? along : along - norm.mean[c * taps + t] * sum[t]);
        mutable_floats(grad_scale)[c * taps + t] = float(grad);
        mutable_floats(grad_bias)[c * taps + t] = float(sum[t]);
        weight[t] = statistics ? grad * inverse[t] : 0.0;
        for (int64_t r = 0; r < taps; ++r)
          mutable_floats(grad_filter)[(c * taps + t) * taps + r] =
              float(scale[t] * (d[t * taps + r] - (statistics ? weight[t] * through[t * taps + r] : 0.0)));
      }
      if (!corrects) continue;
      for (int64_t r = 0; r < taps; ++r) {
        double constant = 0.0;
        for (int64_t t = 0; t < taps; ++t) constant -= scale[t] * filter[t * taps + r] * sum[t] / p.count;
        for (int64_t u = 0; u < taps; ++u) {
          double value = 0.0;
          for (int64_t t = 0; t < taps; ++t)
            value += scale[t] * filter[t * taps + r] * weight[t] / p.count * filter[t * taps + u];
          mutable_floats(q)[(c * taps + r) * taps + u] = float(value);
          constant += value * statistics->mean[c * taps + u];
        }
        mutable_floats(alpha)[c * taps + r] = float(constant);
      }
    }
  });
  if (corrects) add_correction(x, s, alpha, q, grad_x);
  return {grad_filter, grad_scale, grad_bias};
}

// ---- Attentions that look at the whole map -------------------------------------------------------------------------
//
// kind 1, gates: a factor a channel and a factor a place. kind 2, lines: a factor a row and a factor a column of the map of
// taps. The features are relu(feature_weight * x + feature_bias), the norm being folded.

struct Features : Parameters {
  Tensor coefficients;
  Attention kind;

  Features(const Tensor& x, const Tensor& weight, const Tensor& bias, const std::vector<int64_t>& window, int64_t kind_,
           int64_t out_channels, int64_t groups)
      : Parameters(x, weight, std::nullopt, bias, zeros({weight.size(0)}), zeros({weight.size(0)}), std::nullopt, 0, 1.0,
                   window, out_channels, groups),
        kind(Attention(kind_)) {
    STD_TORCH_CHECK(kind_ == 1 || kind_ == 2, "kind must be 1 or 2");
    coefficients = Parameters::coefficients(norm(std::nullopt), nullptr);  // mean 0, var 0, eps 1: as they are
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
                                                   const Tensor& feature_bias, std::vector<int64_t> window, int64_t kind,
                                                   bool count_ties) {
  const Features f(x, feature_weight, feature_bias, window, kind, 1, 1);
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
  const int64_t tasks = lines ? at_most(threads(), s.batch * s.channels) : at_least_one(at_most(threads(), s.pixels() / 64));
  run(tasks, chosen->survey_scratch(s), [&](int64_t n, float* scratch) { chosen->survey(args, scratch, n, tasks); });
  return {first, second, ties};
}

// The gradients of x, feature_weight and feature_bias. Gates: from those of the largest (already shared among ties) and of
// each feature. Lines: from those of each feature by its row and by its column.
std::tuple<Tensor, Tensor, Tensor> survey_backward(const Tensor& largest_, const Tensor& grad_first_,
                                                   const Tensor& grad_second_, const Tensor& x, const Tensor& feature_weight,
                                                   const Tensor& feature_bias, std::vector<int64_t> window, int64_t kind) {
  const Features f(x, feature_weight, feature_bias, window, kind, 1, 1);
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
  return {grad_x, narrow(outer, {c * t, 1, s.kernel_h, s.kernel_w}), narrow(sum, {c * t})};
}

// The features times given gates, contracted. Gates: first [B, C], second [B, T, h, w]; lines: first [B, C, kh, h], second
// [B, C, kw, w].
Tensor contract_gated(const Tensor& x, const Tensor& feature_weight, const Tensor& feature_bias, const Tensor& first_,
                      const Tensor& second_, const Tensor& weight, MaybeTensor bias, std::vector<int64_t> window,
                      int64_t groups, int64_t kind, MaybeTensor scale, MaybeTensor shift, int64_t act) {
  const Features f(x, feature_weight, feature_bias, window, kind, weight.size(0), groups);
  const Tensor first = f.checked_first(first_, "first"), second = f.checked_second(second_, "second");
  const Tensor kernel = dense_weight(weight, f.shape);
  const EpilogueTensors epilogue(bias, scale, shift, act, f.shape.out_channels);
  return contract_features(x, f.shape, f.coefficients, kernel, epilogue.view(), {f.kind, floats(first), floats(second)});
}

// The gradients of x, feature_weight, feature_bias, first, second and weight.
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> contract_gated_backward(
    const Tensor& grad_out, const Tensor& x, const Tensor& feature_weight, const Tensor& feature_bias, const Tensor& first_,
    const Tensor& second_, const Tensor& weight, std::vector<int64_t> window, int64_t groups, int64_t kind) {
  const Features f(x, feature_weight, feature_bias, window, kind, weight.size(0), groups);
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
          narrow(sums.outer, {s.channels * s.taps(), 1, s.kernel_h, s.kernel_w}),
          narrow(sums.sum, {s.channels * s.taps()}),
          grad_first,
          first_of<float>(grad_second, sizes, parts, ScalarType::Float),
          sums.grad_weight};
}

}  // namespace

STABLE_TORCH_LIBRARY(rfaconv, m) {
  m.def("patch_moments(Tensor input, int[] window) -> Tensor");
  m.def("patch_moments_backward(Tensor grad, Tensor input, int[] window) -> Tensor");
  m.def(
      "rfa(Tensor input, Tensor feature_weight, Tensor attention_weight, Tensor weight, Tensor? bias, Tensor? norm_weight, "
      "Tensor? norm_bias, Tensor? mean, Tensor? var, Tensor? moments, int count, float eps, int[] window, int groups, "
      "Tensor? scale, Tensor? shift, int act) -> (Tensor, Tensor, Tensor)");
  m.def(
      "rfa_backward(Tensor grad_out, Tensor input, Tensor feature_weight, Tensor attention_weight, Tensor weight, "
      "Tensor? norm_weight, Tensor? norm_bias, Tensor? mean, Tensor? var, Tensor? moments, int count, float eps, "
      "int[] window, int groups, bool input_too) -> (Tensor, Tensor, Tensor, Tensor, Tensor)");
  m.def(
      "norm_backward(Tensor(a!) grad_x, Tensor input, Tensor feature_weight, Tensor? norm_weight, Tensor? mean, "
      "Tensor? var, Tensor? moments, Tensor sum, Tensor outer, int count, float eps, int[] window) -> (Tensor, Tensor, Tensor)");
  m.def(
      "survey_features(Tensor input, Tensor feature_weight, Tensor feature_bias, int[] window, int kind, bool count_ties) "
      "-> (Tensor, Tensor, Tensor)");
  m.def(
      "survey_backward(Tensor largest, Tensor grad_first, Tensor grad_second, Tensor input, Tensor feature_weight, "
      "Tensor feature_bias, int[] window, int kind) -> (Tensor, Tensor, Tensor)");
  m.def(
      "contract_gated(Tensor input, Tensor feature_weight, Tensor feature_bias, Tensor first, Tensor second, Tensor weight, "
      "Tensor? bias, int[] window, int groups, int kind, Tensor? scale, Tensor? shift, int act) -> Tensor");
  m.def(
      "contract_gated_backward(Tensor grad_out, Tensor input, Tensor feature_weight, Tensor feature_bias, Tensor first, "
      "Tensor second, Tensor weight, int[] window, int groups, int kind) "
      "-> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(rfaconv, CPU, m) {
  m.impl("patch_moments", TORCH_BOX(&patch_moments));
  m.impl("patch_moments_backward", TORCH_BOX(&patch_moments_backward));
  m.impl("rfa", TORCH_BOX(&rfa_forward));
  m.impl("rfa_backward", TORCH_BOX(&rfa_backward));
  m.impl("norm_backward", TORCH_BOX(&norm_backward));
  m.impl("survey_features", TORCH_BOX(&survey_features));
  m.impl("survey_backward", TORCH_BOX(&survey_backward));
  m.impl("contract_gated", TORCH_BOX(&contract_gated));
  m.impl("contract_gated_backward", TORCH_BOX(&contract_gated_backward));
}

// For Python, by ctypes: the name of the kernels in use; another set's, if this machine has it (0 if not).
extern "C" __attribute__((visibility("default"))) const char* rfaconv_instruction_set() { return chosen->name; }
extern "C" __attribute__((visibility("default"))) int rfaconv_use_instruction_set(const char* name) {
  const Kernels* kernels = find_kernels(name);
  if (kernels) chosen = kernels;
  return kernels != nullptr;
}

// What the kernels are told: plain structs, no torch. Sizes are checked by the caller (csrc/ops).
#pragma once

#include <cstddef>
#include <cstdint>

namespace rfa {

// The shape of one call: x [B, C, H, W], out [B, O, h, w].
struct Shape {
  int64_t batch, channels, height, width;
  int64_t out_channels, out_height, out_width;
  int64_t groups;
  int kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w;

  int taps() const { return kernel_h * kernel_w; }
  int64_t pixels() const { return batch * out_height * out_width; }
};

// Channels that are generated together: a panel of some 144 rows stays in the second cache.
inline int block_channels(int taps) { return taps >= 144 ? 1 : 144 / taps; }

// A float map [B, C, H, W] with any strides.
struct Map {
  float* data;
  int64_t batch, channel, row, column;
};
struct ConstMap {
  const float* data;
  int64_t batch, channel, row, column;
};

// out = act((sum + bias) * scale + shift), per output channel; null pointers are left out.
enum class Act : int { none = 0, relu = 1, silu = 2 };
struct Epilogue {
  const float* bias;
  const float* scale;
  const float* shift;
  Act act;
};

// What weighs the features of each tap.
enum class Attention : int {
  softmax = 0,  // over the taps, of attention_weight * mean of the patch (RFAConv)
  gates = 1,    // given factors: channel [B, C] and place [B, T, h, w] (RFCBAMConv)
  lines = 2,    // given factors: rows [B, C, kh, h] and columns [B, C, kw, w] (RFCAConv)
};
struct Gates {
  Attention kind;
  const float* first;   // gates: channel; lines: rows
  const float* second;  // gates: place; lines: columns
};

// Where the gradients of the attention go.
//   softmax: first [splits, C, T], that of attention_weight
//   gates:   first [B, C]; second [shares of the channels, B, T, h, w]
//   lines:   first [B, C, kh, h]; second [B, C, kw, w]
// Those of gates and lines are added to what is there.
struct GateGradients {
  float* first;
  float* second;
};

struct ForwardArgs {
  Shape shape;
  ConstMap x;
  Map out;
  const float* coefficients;  // from `fold`, [C, coefficients(T)]
  const float* weight;        // [O, C/groups * T]
  Epilogue epilogue;
  Gates gates;
};

struct BackwardArgs {
  Shape shape;
  ConstMap x, grad_out;
  const float* coefficients;  // from `fold`
  const float* weight;        // [O, C/groups * T]
  Gates gates;
  // Results; per image group (see `splits`) one after the other.
  Map grad_x;         // zeroed by the caller; data null: not wanted
  float* grad_weight;  // [splits, O, C/groups * T]
  GateGradients gate_grads;
  double* sum;         // [splits, C, T]: S, the sum of the features' gradients
  double* outer;       // [splits, C, T, T]: D, the sum of gradient times patch, centred if the coefficients are
  int64_t splits;          // the images are cut into so many groups
  int64_t blocks_a_group;  // and the channels of a group into so many blocks, none larger than block_channels()
};

// The gradient through batch statistics: x's gradient gains fold(alpha - Q patch), [C, T] and [C, T, T].
struct CorrectionArgs {
  Shape shape;
  ConstMap x;
  Map grad_x;
  const float* alpha;
  const float* q;
};

struct MomentsArgs {
  Shape shape;
  ConstMap x;
  double* moments;  // [C, T + T*T]: sums of patches and of their products
};

// Statistics of the features over the whole map that an attention wants before anything is contracted.
struct SurveyArgs {
  Shape shape;
  ConstMap x;
  const float* coefficients;
  Attention kind;
  float* first;   // gates: [B, T, h, w], the largest feature over C; lines: [B, C, kh, h], means over each row
  float* second;  // gates: the same shape, their mean over C;         lines: [B, C, kw, w], means over each column
  float* ties;    // gates: how many channels have the largest feature; null: not wanted
};

// The gradient of a survey. gates: each feature gains grad_second, and grad_first where it is the largest.
// lines: each feature gains that of its row and that of its column.
struct SurveyBackwardArgs {
  Shape shape;
  ConstMap x;
  const float* coefficients;
  Attention kind;
  const float* largest;  // gates: the survey's first result
  const float* grad_first;
  const float* grad_second;
  Map grad_x;     // zeroed by the caller
  double* sum;    // [C, T]: S
  double* outer;  // [C, T, T]: D
};

// One instruction set's kernels. `task` of `tasks` says which part of the work is done; parts do not overlap in what they
// write, so they may run at the same time. `scratch` holds as many floats as the *_scratch function says, aligned to 64
// bytes and for this task alone.
struct Kernels {
  const char* name;
  int64_t (*coefficients)(int taps);
  void (*fold)(const float* feature_weight, const float* attention_weight, const double* scale, const double* offset,
               const double* centre, int64_t channels, int taps, float* coefficients);
  int64_t (*forward_scratch)(const Shape&);
  void (*forward)(const ForwardArgs&, float* scratch, int64_t task, int64_t tasks);
  int64_t (*backward_scratch)(const Shape&);
  void (*backward)(const BackwardArgs&, float* scratch, int64_t task, int64_t tasks);
  int64_t (*rows_scratch)(const Shape&);
  void (*correct)(const CorrectionArgs&, float* scratch, int64_t task, int64_t tasks);
  void (*moments)(const MomentsArgs&, float* scratch, int64_t task, int64_t tasks);
  int64_t (*survey_scratch)(const Shape&);
  void (*survey)(const SurveyArgs&, float* scratch, int64_t task, int64_t tasks);
  int64_t (*survey_backward_scratch)(const Shape&);
  void (*survey_backward)(const SurveyBackwardArgs&, float* scratch, int64_t task, int64_t tasks);
};

const Kernels& baseline_kernels();
const Kernels& avx2_kernels();
const Kernels& avx512_kernels();

}  // namespace rfa

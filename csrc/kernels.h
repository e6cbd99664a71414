// All kernels for one instruction set. kernels_*.cpp include this file, each with a name and compiler flags of its own.
#pragma once

#include "backward.h"
#include "forward.h"
#include "statistics.h"
#include "survey.h"

namespace rfa {
namespace RFA_ISA {

static int64_t coefficients(int taps) { return Coefficients::floats(taps); }

static const Kernels KERNELS = {RFA_NAME,         coefficients,     Coefficients::fold, forward_scratch,
                                forward,          backward_scratch, backward,           rows_scratch,
                                correct,          moments,          Survey::scratch,    survey,
                                survey_backward_scratch, survey_backward};

}  // namespace RFA_ISA
}  // namespace rfa

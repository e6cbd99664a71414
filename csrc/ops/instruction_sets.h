// Which of the compiled kernels run.
#pragma once

#include "../problem.h"

namespace rfa {

// The best that this machine has, unless `rfaconv_use_instruction_set` chose others.
extern const Kernels* chosen;

}  // namespace rfa

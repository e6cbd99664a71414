#define RFA_ISA baseline
#define RFA_NAME "baseline"
#include "kernels.h"

const rfa::Kernels& rfa::baseline_kernels() { return rfa::baseline::KERNELS; }

#define RFA_ISA avx2
#define RFA_NAME "AVX2"
#include "kernels.h"

const rfa::Kernels& rfa::avx2_kernels() { return rfa::avx2::KERNELS; }

#define RFA_ISA avx512
#define RFA_NAME "AVX-512"
#include "kernels.h"

const rfa::Kernels& rfa::avx512_kernels() { return rfa::avx512::KERNELS; }

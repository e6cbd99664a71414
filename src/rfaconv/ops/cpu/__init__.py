"""The backend "cpu": the C++ kernels of csrc/ and what Python adds to them."""

// GGUF files for C++ programs: rocforge::gguf::File and what it consists of. No torch.
#pragma once

#include "gguf/file.h"

// SPDX-License-Identifier: MIT
#pragma once

#include "vmm/base/expected.hpp"
#include "vmm/loader/loader.hpp"

namespace hv::loader {

/// Says in the log why the VM's kernel is not started, and returns the error.
Unexpected refuse(const LoadRequest& request, Error error, const char* format, ...)
    __attribute__((format(printf, 3, 4)));

}  // namespace hv::loader

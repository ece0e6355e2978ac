// SPDX-License-Identifier: MIT
// Assertions guard against our own bugs only; what a guest, a device or firmware does wrong is answered,
// never asserted.
#pragma once

namespace hv {

/// Ends the host with a message; supplied at link time (kernel: register dump and backtrace, host tests:
/// abort).
[[noreturn]] void panic(const char* format, ...) __attribute__((format(printf, 1, 2)));

[[noreturn]] void assertion_failed(const char* expression, const char* file, int line);

}  // namespace hv

/// Stays in release builds. The condition must have no side effect.
#define HV_ASSERT(condition)                                                                                 \
    (__builtin_expect(!!(condition), 1) ? static_cast<void>(0)                                               \
                                        : ::hv::assertion_failed(#condition, __FILE__, __LINE__))

/// For checks too costly for release builds.
#ifdef HV_DEBUG
#define HV_DEBUG_ASSERT(condition) HV_ASSERT(condition)
#else
#define HV_DEBUG_ASSERT(condition) static_cast<void>(0)
#endif

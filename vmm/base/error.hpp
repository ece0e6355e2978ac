// SPDX-License-Identifier: MIT
// Why an operation failed: one byte, carried by Expected<T>. Details belong into the log line written where
// the failure was understood, not into the code.
#pragma once

#include <cstdint>

namespace hv {

enum class Error : std::uint8_t {
    no_memory,         ///< an allocation failed
    invalid_argument,  ///< the caller's value is not allowed
    out_of_range,      ///< an index or address beyond the object
    unsupported,       ///< this processor, device or format lacks the feature
    not_found,
    already_exists,
    busy,       ///< try again after a completion
    corrupted,  ///< a checksum, signature or structure is wrong
    io_error,   ///< the device reported a failure
    timed_out,
    guest_fault,  ///< the guest gets an exception for it
    disabled,     ///< locked off by firmware
};

constexpr const char* to_string(Error error) {
    switch (error) {
    case Error::no_memory: return "out of memory";
    case Error::invalid_argument: return "invalid argument";
    case Error::out_of_range: return "out of range";
    case Error::unsupported: return "unsupported";
    case Error::not_found: return "not found";
    case Error::already_exists: return "already exists";
    case Error::busy: return "busy";
    case Error::corrupted: return "corrupted";
    case Error::io_error: return "I/O error";
    case Error::timed_out: return "timed out";
    case Error::guest_fault: return "guest fault";
    case Error::disabled: return "disabled by firmware";
    }
    return "unknown error";
}

}  // namespace hv

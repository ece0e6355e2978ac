// SPDX-License-Identifier: MIT
// What a guest-physical address reaches: the nested page tables behind one interface (EPT on VT-x, NPT on
// AMD-V).
#pragma once

#include "vmm/base/address.hpp"
#include "vmm/base/expected.hpp"

#include <atomic>
#include <cstdint>
#include <optional>

namespace hv {

enum class GuestAccess : std::uint8_t {
    read = 1,
    write = 2,
    execute = 4,
    read_write_execute = 7,
    read_execute = 5
};

class GuestAddressSpace {
public:
    virtual ~GuestAddressSpace() = default;
    GuestAddressSpace(const GuestAddressSpace&) = delete;
    GuestAddressSpace& operator=(const GuestAddressSpace&) = delete;

    /// Maps `length` bytes with the largest pages that fit. All three are multiples of 4 KiB; what was mapped
    /// there is replaced. Error::no_memory leaves a prefix mapped.
    virtual Expected<void> map(Gpa gpa, Hpa hpa, std::uint64_t length, GuestAccess access) = 0;
    /// Error::no_memory (a large page had to be split): nothing has changed.
    virtual Expected<void> unmap(Gpa gpa, std::uint64_t length) = 0;
    [[nodiscard]] virtual std::optional<Hpa> translate(Gpa gpa) const = 0;
    /// The root for VMCS or VMCB: EPTP, nCR3.
    [[nodiscard]] virtual std::uint64_t root() const = 0;
    /// Increases with every change that a CPU's TLB may contradict; a CPU that runs a vCPU with an older
    /// value flushes first.
    [[nodiscard]] std::uint64_t generation() const { return generation_.load(std::memory_order_acquire); }
    /// Every CPU that may run the guest has flushed since generation `flushed`, or will before it runs: page
    /// tables that went out of use are freed. No effect if the generation has moved on.
    virtual void reclaim(std::uint64_t flushed) { static_cast<void>(flushed); }
    /// Bytes of page tables.
    [[nodiscard]] virtual std::uint64_t table_bytes() const = 0;

protected:
    GuestAddressSpace() = default;
    /// Visible before the caller goes on to make the CPUs flush.
    void set_generation(std::uint64_t generation) {
        generation_.store(generation, std::memory_order_release);
    }

private:
    std::atomic<std::uint64_t> generation_{1};
};

}  // namespace hv

// SPDX-License-Identifier: MIT
// What a processor can take over of a guest's local APIC while the guest runs. A backend offers it by
// VcpuBackend::apic_acceleration(); vmm/x86/local_apic uses what is offered and gives the guest the same
// results without.
//
// The APIC's registers lie in a page of the architectural layout. While `Extent::interrupts` is in use,
// the processor owns TPR, PPR, ISR and IRR there, delivers what IRR asks for by itself, and writes what the
// guest writes; all else in the page is put there for the guest to read.
#pragma once

#include "vmm/base/address.hpp"

#include <array>
#include <cstdint>

namespace hv {

/// [sdm3 11.4.1 The Local APIC Block Diagram]: a register is the first four of sixteen bytes.
struct alignas(kPageSize) ApicPage {
    struct Register {
        std::uint32_t value;
        std::uint32_t reserved[3];
    };
    std::array<Register, 256> registers;

    [[nodiscard]] std::uint32_t read(std::uint32_t index) const { return registers[index].value; }
    void write(std::uint32_t index, std::uint32_t value) { registers[index].value = value; }
};
static_assert(sizeof(ApicPage) == kPageSize);

class ApicAcceleration {
public:
    enum class Extent : std::uint8_t {
        task_priority,  ///< the guest changes TPR in the page by MOV to CR8
        interrupts,     ///< the guest uses the page's registers, and the processor delivers interrupts
    };
    enum class Mode : std::uint8_t { disabled, xapic, x2apic };
    /// The highest vectors in IRR and ISR; 0: there is none.
    struct Status {
        std::uint8_t requested;
        std::uint8_t in_service;
    };
    class Client {
    public:
        /// TPR in the page is not what the VMM wrote there last: the guest changed it.
        virtual void task_priority_changed(std::uint8_t value) = 0;

    protected:
        ~Client() = default;
    };

    [[nodiscard]] virtual Extent extent() const = 0;
    [[nodiscard]] virtual ApicPage& page() = 0;

    // --- Extent::task_priority ---------------------------------------------------------------------------
    /// Once. While the class of `highest_request`, a vector or -1, is not above TPR's, the guest exits
    /// (interrupt_window) when it lowers TPR below it.
    virtual void watch(Client& client, const int& highest_request) = 0;

    // --- Extent::interrupts: on the vCPU's CPU, but the setters also while the vCPU is on none
    // ---------------
    /// Which accesses of the guest reach the page.
    virtual void set_mode(Mode mode, Gpa base) = 0;
    /// Of the interrupts in the page.
    [[nodiscard]] virtual Status status() const = 0;
    virtual void set_status(Status status) = 0;
    /// Which of the vectors 64 * `word` and up make an EOI exit (apic_eoi).
    virtual void set_eoi_exits(unsigned word, std::uint64_t vectors) = 0;

protected:
    ~ApicAcceleration() = default;
};

}  // namespace hv

// SPDX-License-Identifier: MIT
#include "arch/x86_64/cpu/guest_fpu.hpp"

#include "arch/x86_64/cpu/instructions.hpp"
#include "arch/x86_64/defs/cpuid.hpp"
#include "arch/x86_64/defs/cr.hpp"
#include "vmm/base/bits.hpp"

#include <cstring>
#include <new>

// vector_registers.S
extern "C" {
void cpu_read_xmm(std::uint64_t* out, unsigned index);
void cpu_write_xmm(const std::uint64_t* in, unsigned index);
void cpu_read_ymm(std::uint64_t* out, unsigned index);
void cpu_write_ymm(const std::uint64_t* in, unsigned index);
}

namespace hv::cpu {
namespace {

/// x87, SSE, AVX, AVX-512 opmask, ZMM_Hi256, Hi16_ZMM: what guests may be offered [sdm1 13.1 XSAVE-Supported
/// Features].
constexpr std::uint64_t kOfferedComponents = 0xe7;
constexpr std::size_t kFxsaveSize = 512;
constexpr std::size_t kXsaveHeaderSize = 64;

struct Xsave {
    bool available;
    std::uint64_t components;
    std::size_t area_size;
};
constinit Xsave xsave_state{};

/// MMX registers are reached in FXSAVE's image, not by MMX instructions: those would raise what x87
/// exceptions the guest has pending.
class MmxImage {
public:
    /// Any access sets TOP to 0 and all tags to valid [sdm1 9.6.2 Effect of MMX Instructions on x87
    /// Registers].
    MmxImage() {
        asm volatile("fxsave64 %0" : "=m"(image_));
        std::uint16_t status;
        std::memcpy(&status, image_ + kStatus, sizeof status);
        const unsigned top = status >> 11 & 7;
        // The image holds ST(0) first, which is the register that TOP names.
        std::byte registers[8 * kSlot];
        for (unsigned i = 0; i < 8; ++i)
            std::memcpy(registers + i * kSlot, image_ + kRegisters + ((i + 8 - top) & 7) * kSlot, kSlot);
        std::memcpy(image_ + kRegisters, registers, sizeof registers);
        status = static_cast<std::uint16_t>(status & ~0x3800U);
        std::memcpy(image_ + kStatus, &status, sizeof status);
        image_[kTags] = std::byte{0xff};
    }
    ~MmxImage() { asm volatile("fxrstor64 %0" ::"m"(image_)); }
    MmxImage(const MmxImage&) = delete;
    MmxImage& operator=(const MmxImage&) = delete;

    [[nodiscard]] std::uint64_t get(unsigned index) const {
        std::uint64_t value;
        std::memcpy(&value, image_ + kRegisters + index * kSlot, sizeof value);
        return value;
    }
    void set(unsigned index, std::uint64_t value) {
        std::byte* const at = image_ + kRegisters + index * kSlot;
        std::memcpy(at, &value, sizeof value);
        std::memset(at + sizeof value, 0xff, 2);  // sign and exponent
    }

private:
    // [sdm1 10.5.1 FXSAVE Area]
    static constexpr std::size_t kStatus = 2, kTags = 4, kRegisters = 32, kSlot = 16;
    alignas(16) std::byte image_[kFxsaveSize];
};

}  // namespace

void enable_fpu() {
    // CR0.TS and CR0.EM clear: guests use the registers without a trap, the hypervisor does not use them at
    // all.
    write_cr0((read_cr0() & ~(bit(2) | bit(3))) | bit(1) | bit(5));
    write_cr4(read_cr4() | bit(9) | bit(10));
    const bool available = (cpuid(1).ecx & (1U << 26)) != 0;
    if (!available) {
        xsave_state = {false, 0, kFxsaveSize};
        return;
    }
    write_cr4(read_cr4() | bit(18));
    const CpuidLeaf leaf = cpuid(0xd, 0);
    const std::uint64_t components = (std::uint64_t{leaf.edx} << 32 | leaf.eax) & kOfferedComponents;
    xsetbv(0, components);
    xsave_state = {true, components, cpuid(0xd, 0).ebx};
}

void GuestFpu::Free::operator()(std::byte* area) const {
    ::operator delete (area, std::align_val_t{64});
}

Expected<GuestFpu> GuestFpu::create() {
    auto* memory =
        static_cast<std::byte*>(::operator new (xsave_state.area_size, std::align_val_t{64}, std::nothrow));
    if (memory == nullptr)
        return Unexpected{Error::no_memory};
    GuestFpu fpu{std::unique_ptr<std::byte, Free>{memory}};
    fpu.write_reset_state();
    return fpu;
}

void GuestFpu::write_reset_state() {
    std::byte* memory = area_.get();
    std::memset(memory, 0, xsave_state.area_size);
    // [sdm3 10.1.1 Processor State After Reset]: FCW 0x40 after RESET, 0x37f after FNINIT; MXCSR 0x1f80.
    const std::uint16_t fcw = 0x0040;
    const std::uint32_t mxcsr = 0x1f80;
    std::memcpy(memory, &fcw, sizeof fcw);
    std::memcpy(memory + 24, &mxcsr, sizeof mxcsr);
    if (xsave_state.available) {
        const std::uint64_t xstate_bv = 3;
        std::memcpy(memory + kFxsaveSize, &xstate_bv, sizeof xstate_bv);
    }
    static_assert(kFxsaveSize + kXsaveHeaderSize == 576);
    xcr0_ = 1;
}

void GuestFpu::reset() {
    write_reset_state();
    if (loaded_)
        load();
}

void GuestFpu::load() {
    loaded_ = true;
    if (!xsave_state.available) {
        asm volatile("fxrstor64 (%0)" ::"r"(area_.get()) : "memory");
        return;
    }
    // The area holds all components, whatever the guest has switched on.
    xsetbv(0, xsave_state.components);
    asm volatile("xrstor64 (%0)" ::"r"(area_.get()), "a"(0xffff'ffff), "d"(0xffff'ffff) : "memory");
    xsetbv(0, xcr0_);
}

void GuestFpu::save() {
    loaded_ = false;
    if (!xsave_state.available) {
        asm volatile("fxsave64 (%0)\n fninit" ::"r"(area_.get()) : "memory");
        return;
    }
    // A processor that does not let XSETBV be intercepted changes XCR0 behind our back.
    xcr0_ = xgetbv(0) & xsave_state.components;
    xsetbv(0, xsave_state.components);
    // Where no x87 exception is pending, some processors' XRSTOR leaves the last instruction's and operand's
    // addresses as they are: the next owner must not find this guest's there.
    asm volatile("xsave64 (%0)\n fninit" ::"r"(area_.get()), "a"(0xffff'ffff), "d"(0xffff'ffff) : "memory");
}

void GuestFpu::set_xcr0(std::uint64_t value) {
    xcr0_ = value;
    if (loaded_ && xsave_state.available)
        xsetbv(0, value);
}

std::uint64_t GuestFpu::xcr0() const {
    return loaded_ && xsave_state.available ? xgetbv(0) : xcr0_;
}

void GuestFpu::get_vector(VectorFile file, unsigned index, VectorValue& out) {
    switch (file) {
    case VectorFile::mmx: out.part[0] = MmxImage{}.get(index & 7); break;
    case VectorFile::xmm: cpu_read_xmm(out.part, index & 15); break;
    case VectorFile::ymm: cpu_read_ymm(out.part, index & 15); break;
    }
}

void GuestFpu::set_vector(VectorFile file, unsigned index, const VectorValue& in) {
    switch (file) {
    case VectorFile::mmx: MmxImage{}.set(index & 7, in.part[0]); break;
    case VectorFile::xmm: cpu_write_xmm(in.part, index & 15); break;
    case VectorFile::ymm: cpu_write_ymm(in.part, index & 15); break;
    }
}

}  // namespace hv::cpu

// SPDX-License-Identifier: MIT
#include "arch/x86_64/cpu/guest_fpu.hpp"

#include "arch/x86_64/cpu/instructions.hpp"
#include "arch/x86_64/defs/cpuid.hpp"
#include "arch/x86_64/defs/cr.hpp"
#include "vmm/base/bits.hpp"
#include "vmm/base/bytes.hpp"

#include <cstring>
#include <new>

namespace hv::cpu {
namespace {

/// x87, SSE, AVX, AVX-512 opmask, ZMM_Hi256, Hi16_ZMM: what guests may be offered [sdm1 13.1 XSAVE-Supported
/// Features].
constexpr std::uint64_t kOfferedComponents = 0xe7;
constexpr std::uint64_t kYmm = XCR0_SSE | XCR0_AVX;
constexpr std::size_t kFxsaveSize = 512;
constexpr std::size_t kXsaveHeaderSize = 64;

struct Xsave {
    bool available;
    std::uint64_t components;
    std::size_t area_size;
};
constinit Xsave xsave_state{};

// [sdm1 10.5.1 FXSAVE Area], [sdm1 13.4 XSAVE Area]
constexpr std::size_t kStatusWord = 2, kTagByte = 4, kX87Registers = 32, kXmmRegisters = 160, kSlot = 16;
constexpr std::size_t kZmmHighSlot = 32;

/// All tags valid and TOP 0, as any access to an MMX register leaves them [sdm1 9.6.2 Effect of MMX, x87 FPU,
/// FXSAVE, and FXRSTOR Instructions on the x87 FPU Tag Word].
void turn_into_mmx(std::byte* area) {
    auto status = hv::load<std::uint16_t>(area + kStatusWord);
    const unsigned top = status >> 11 & 7;
    // The image holds ST(0) first, which is the register that TOP names.
    std::byte registers[8 * kSlot];
    for (unsigned i = 0; i < 8; ++i)
        std::memcpy(registers + i * kSlot, area + kX87Registers + ((i + 8 - top) & 7) * kSlot, kSlot);
    std::memcpy(area + kX87Registers, registers, sizeof registers);
    hv::store(area + kStatusWord, static_cast<std::uint16_t>(status & ~0x3800U));
    area[kTagByte] = std::byte{0xff};
}

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

// Single registers are reached in the image of all of them: MMX instructions of ours would raise what x87
// exceptions the guest has pending, and no instruction of the hypervisor names a vector register
// (docs/decisions/0011-guest-fpu.md). While the registers are loaded, nobody needs what is in the area.

void GuestFpu::get_vector(VectorFile file, unsigned index, VectorValue& out) {
    std::byte* const area = area_.get();
    if (file == VectorFile::ymm) {
        store_components(kYmm);
        std::memcpy(out.part, area + kXmmRegisters + index * kSlot, kSlot);
        std::memcpy(out.part + 2, area + cpuid(0xd, 2).ebx + index * kSlot, kSlot);
        return;
    }
    asm volatile("fxsave64 (%0)" ::"r"(area) : "memory");
    if (file == VectorFile::xmm) {
        std::memcpy(out.part, area + kXmmRegisters + index * kSlot, kSlot);
        return;
    }
    turn_into_mmx(area);
    std::memcpy(out.part, area + kX87Registers + index * kSlot, sizeof out.part[0]);
    asm volatile("fxrstor64 (%0)" ::"r"(area) : "memory");
}

void GuestFpu::set_vector(VectorFile file, unsigned index, const VectorValue& in) {
    std::byte* const area = area_.get();
    if (file == VectorFile::ymm) {
        const std::uint64_t components = kYmm | (xgetbv(0) & XCR0_ZMM_HI256);
        store_components(components);
        std::memcpy(area + kXmmRegisters + index * kSlot, in.part, kSlot);
        std::memcpy(area + cpuid(0xd, 2).ebx + index * kSlot, in.part + 2, kSlot);
        if ((components & XCR0_ZMM_HI256) != 0)
            std::memset(area + cpuid(0xd, 6).ebx + index * kZmmHighSlot, 0, kZmmHighSlot);
        hv::store(area + kFxsaveSize, hv::load<std::uint64_t>(area + kFxsaveSize) | kYmm);
        asm volatile("xrstor64 (%0)" ::"r"(area), "a"(static_cast<std::uint32_t>(components)), "d"(0)
                     : "memory");
        return;
    }
    asm volatile("fxsave64 (%0)" ::"r"(area) : "memory");
    if (file == VectorFile::xmm) {
        std::memcpy(area + kXmmRegisters + index * kSlot, in.part, kSlot);
    } else {
        turn_into_mmx(area);
        std::byte* const at = area + kX87Registers + index * kSlot;
        std::memcpy(at, in.part, sizeof in.part[0]);
        std::memset(at + sizeof in.part[0], 0xff, 2);  // sign and exponent
    }
    asm volatile("fxrstor64 (%0)" ::"r"(area) : "memory");
}

/// XSAVE of components that XCR0 has on: their images, and in XSTATE_BV which of them are not in their
/// initial configuration.
void GuestFpu::store_components(std::uint64_t components) {
    asm volatile("xsave64 (%0)" ::"r"(area_.get()), "a"(static_cast<std::uint32_t>(components)), "d"(0)
                 : "memory");
}

}  // namespace hv::cpu

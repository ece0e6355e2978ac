// SPDX-License-Identifier: MIT
// A vCPU without a processor: its state is what tests put there, and what is injected is recorded.
#pragma once

#include "arch/x86_64/defs/cr.hpp"
#include "vmm/core/vcpu_backend.hpp"

#include <algorithm>
#include <array>
#include <deque>
#include <functional>
#include <vector>

namespace hv::fake {

class FakeVcpuBackend final : public VcpuBackend {
public:
    void run() override {
        ++runs;
        if (on_run)
            on_run();
        exit = {};  // host_interrupt
        if (!exits.empty()) {
            exit = exits.front();
            exits.pop_front();
        }
        rip_ = regs.rip;
    }
    void get_state(CpuState& out, RegSet which) const override { copy(state, out, which); }
    void set_state(const CpuState& in, RegSet which) override { copy(in, state, which); }
    bool inject(Event event) override {
        if (event.type == Event::Type::external_interrupt && !can_take_interrupt())
            return false;
        if (event.type == Event::Type::nmi && (!takes_nmis || shadows_nmis))
            return false;
        injected.push_back(event);
        return true;
    }
    void request_window(Event::Type type) override { windows.push_back(type); }
    [[nodiscard]] bool can_take_interrupt() const override {
        return takes_interrupts && (regs.rflags & RFLAGS_IF) != 0 && !interrupt_shadow();
    }
    [[nodiscard]] bool interrupt_shadow() const { return shadow && regs.rip == rip_; }
    /// STI or MOV SS comes before the instruction at regs.rip.
    void cast_shadow() {
        shadow = true;
        rip_ = regs.rip;
    }
    [[nodiscard]] unsigned cpl() const override { return state.cpl(); }
    [[nodiscard]] std::uint64_t segment_base(SegmentName name) const override { return state.seg(name).base; }
    [[nodiscard]] bool runs_in(const CodeContext& context) const override {
        return context == CodeContext::of(state);
    }
    void set_nmi_blocking(bool blocked) override { takes_nmis = !blocked; }
    [[nodiscard]] bool nmi_blocking() const override { return !takes_nmis; }
    void set_tsc_offset(std::int64_t offset) override { tsc_offset = offset; }
    void set_pause_exits(bool wanted) override { pause_exits = wanted; }
    void reset() override {
        xcr0_value = 1;
        tsc_aux_value = 0;
        ++resets;
    }
    void set_xcr0(std::uint64_t value) override { xcr0_value = value; }
    [[nodiscard]] std::uint64_t xcr0() const override { return xcr0_value; }
    void set_tsc_aux(std::uint64_t value) override { tsc_aux_value = value; }
    [[nodiscard]] std::uint64_t tsc_aux() const override { return tsc_aux_value; }
    void get_vector(VectorFile file, unsigned index, VectorValue& out) override {
        const auto& from = vectors.at(file == VectorFile::mmx ? 16 + index : index);
        std::copy_n(from.part, file == VectorFile::mmx ? 1 : file == VectorFile::xmm ? 2 : 4, out.part);
    }
    void set_vector(VectorFile file, unsigned index, const VectorValue& in) override {
        auto& to = vectors.at(file == VectorFile::mmx ? 16 + index : index);
        std::copy_n(in.part, file == VectorFile::mmx ? 1 : file == VectorFile::xmm ? 2 : 4, to.part);
    }
    void flush_guest_tlb() override { ++flushes; }
    void enter_cpu() override { ++entered; }
    void leave_cpu() override { ++left; }
    void log_state() const override {}

    /// A kernel in 64-bit mode with flat segments and paging on.
    void enter_long_mode(std::uint64_t cr3) {
        state.cr0 = 0x8001'0033;  // PG WP NE ET MP PE
        state.cr3 = cr3;
        state.cr4 = 0x20;    // PAE
        state.efer = 0xd01;  // NXE LMA LME SCE
        flat_segments(0xa9b);
    }
    /// 32-bit flat code, paging off.
    void enter_protected_mode() {
        state.cr0 = 0x11;
        state.cr3 = state.cr4 = state.efer = 0;
        flat_segments(0xc9b);
    }
    void enter_real_mode() {
        state.cr0 = 0x10;
        state.cr3 = state.cr4 = state.efer = 0;
        for (Segment& segment : state.segment)
            segment = {0, 0x93, 0xffff, 0};
    }
    void set_cpl(unsigned cpl) {
        for (Segment& segment : state.segment)
            segment.attributes = static_cast<std::uint16_t>((segment.attributes & ~0x60) | cpl << 5);
    }

    CpuState state{};
    std::array<VectorValue, 24> vectors{};  ///< YMM0 to YMM15, MM0 to MM7
    std::uint64_t xcr0_value{1};
    std::uint64_t tsc_aux_value{0};
    std::int64_t tsc_offset{0};
    bool shadow{false};
    bool takes_interrupts{true};
    bool takes_nmis{true};
    bool shadows_nmis{false};  ///< as MOV SS does
    bool pause_exits{false};
    std::vector<Event> injected;
    std::vector<Event::Type> windows;
    std::deque<VmExit> exits;      ///< what run() returns, in order
    std::function<void()> on_run;  ///< what happens while the guest runs
    unsigned resets{0}, runs{0}, flushes{0}, entered{0}, left{0};

private:
    std::uint64_t rip_{0};  ///< where run() left the guest

    void flat_segments(std::uint16_t code_attributes) {
        for (Segment& segment : state.segment)
            segment = {0x10, 0xc93, 0xffff'ffff, 0};
        state.seg(SegmentName::cs).attributes = code_attributes;
    }
    static void copy(const CpuState& from, CpuState& to, RegSet which) {
        if (includes(which, RegSet::control)) {
            to.cr0 = from.cr0;
            to.cr2 = from.cr2;
            to.cr3 = from.cr3;
            to.cr4 = from.cr4;
            to.efer = from.efer;
        }
        if (includes(which, RegSet::segments)) {
            for (unsigned i = 0; i < 6; ++i)
                to.segment[i] = from.segment[i];
            to.tr = from.tr;
            to.ldtr = from.ldtr;
        }
        if (includes(which, RegSet::tables)) {
            to.gdtr = from.gdtr;
            to.idtr = from.idtr;
        }
        if (includes(which, RegSet::debug)) {
            for (unsigned i = 0; i < 4; ++i)
                to.dr[i] = from.dr[i];
            to.dr6 = from.dr6;
            to.dr7 = from.dr7;
        }
        if (includes(which, RegSet::msrs)) {
            to.star = from.star;
            to.lstar = from.lstar;
            to.cstar = from.cstar;
            to.sfmask = from.sfmask;
            to.kernel_gs_base = from.kernel_gs_base;
            to.sysenter_cs = from.sysenter_cs;
            to.sysenter_esp = from.sysenter_esp;
            to.sysenter_eip = from.sysenter_eip;
            to.pat = from.pat;
        }
    }
};

}  // namespace hv::fake

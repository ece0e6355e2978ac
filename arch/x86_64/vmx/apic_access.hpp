// SPDX-License-Identifier: MIT
// The APIC-access page of a VM: a frame mapped where the guest's local APICs are, so that the processor
// recognises accesses to them [sdm3 30.4 Virtualizing Memory-Mapped APIC Accesses]. All vCPUs share the
// nested page tables. Therefore it is mapped only while all of their APICs are in xAPIC mode at the same
// address: a vCPU that has none there would reach the frame itself. Meanwhile accesses are EPT violations,
// which are emulated.
#pragma once

#include "vmm/base/guarded.hpp"
#include "vmm/base/vec.hpp"
#include "vmm/core/guest_address_space.hpp"

#include <cstddef>
#include <cstdint>

namespace hv::vmx {

class ApicAccess {
public:
    static constexpr std::uint64_t kNowhere = ~std::uint64_t{0};

    /// One more vCPU, its APIC nowhere. The result names it from then on. Error::no_memory.
    Expected<std::size_t> join() {
        return state_.with([](State& state) -> Expected<std::size_t> {
            for (std::size_t i = 0; i < state.places.size(); ++i) {
                if (state.places[i] == kFree) {
                    state.places[i] = kNowhere;
                    return i;
                }
            }
            HV_TRY(state.places.push(kNowhere));
            return state.places.size() - 1;
        });
    }
    void leave(std::size_t vcpu) {
        state_.with([&](State& state) { state.places[vcpu] = kFree; });
    }

    /// The page of vCPU `vcpu`'s APIC is now at `place`, or kNowhere. Its CPU flushes what it has cached of
    /// `space` before it enters the guest; other vCPUs' may do so at leisure. `frame` is never read or
    /// written. Where RAM is, the page is not mapped, nor if there is no memory for it.
    void move(GuestAddressSpace& space, std::size_t vcpu, std::uint64_t place, Hpa frame) {
        state_.with([&](State& state) {
            state.places[vcpu] = place;
            const std::uint64_t common = common_place(state);
            if (common == state.mapped)
                return;
            // Error::no_memory cannot be: a single page is no part of a larger one.
            if (state.mapped != kNowhere)
                static_cast<void>(space.unmap(Gpa{state.mapped}, kPageSize).value());
            state.mapped = kNowhere;
            if (common != kNowhere && !space.translate(Gpa{common}) &&
                space.map(Gpa{common}, frame, kPageSize, GuestAccess::read_write_execute))
                state.mapped = common;
        });
    }

private:
    static constexpr std::uint64_t kFree = kNowhere - 1;
    struct State {
        Vec<std::uint64_t> places;  ///< by vCPU
        std::uint64_t mapped{kNowhere};
    };

    static std::uint64_t common_place(const State& state) {
        std::uint64_t common = kFree;
        for (const std::uint64_t place : state.places.span()) {
            if (place == kFree)
                continue;
            if (place == kNowhere || (common != kFree && common != place))
                return kNowhere;
            common = place;
        }
        return common == kFree ? kNowhere : common;
    }

    Guarded<State, Rank::interrupt> state_{};
};

}  // namespace hv::vmx

// SPDX-License-Identifier: MIT
// What a VM's guest does without goes back to the host: granules that its balloon took or that it reported as
// free. They come again, full of zeroes, when somebody touches them.
//
// A granule goes in steps, on the boot CPU, several at a time: nobody finds it any more, neither the VMM
// (GuestMemory::detach()) nor the guest (it is unmapped); every CPU has left what it was doing and flushes
// before it runs the guest (machine::synchronize()); no device uses it any more (GuestMemory::drained());
// then it is zeroed and freed. docs/decisions/0023-spare-memory.md says why.
#pragma once

#include "vmm/base/guarded.hpp"
#include "vmm/base/timer.hpp"
#include "vmm/core/guest_address_space.hpp"
#include "vmm/mm/guest_memory.hpp"
#include "vmm/virtio/balloon_pages.hpp"

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

namespace hv {

class SpareMemory final : public virtio::BalloonMemory, private Timer {
public:
    /// Granules that go at a time.
    static constexpr std::size_t kBatch = 8;
    /// At least as long a batch waits for the one before.
    static constexpr std::uint64_t kPauseNs = 1'000'000;
    /// Zeroed in one step: the boot CPU also looks after the console.
    static constexpr std::uint64_t kZeroedAtATime = 32 * kKiB;

    /// The VM.
    class Owner {
    public:
        /// The boot CPU shall call service(). Any CPU, no lock held.
        virtual void spare_memory_waits() = 0;
        /// Some memory is gone: a vCPU that knows where memory lies forgets that, at once or before it next
        /// enters the guest.
        virtual void memory_leaves() = 0;

    protected:
        ~Owner() = default;
    };

    /// `memory` is releasable. All outlive this.
    SpareMemory(GuestMemory& memory, GuestAddressSpace& space, Clock& clock, Owner& owner)
        : memory_{memory}, space_{space}, clock_{clock}, owner_{owner} {}
    SpareMemory(const SpareMemory&) = delete;
    /// After stop(); nothing uses the VM's memory any more.
    ~SpareMemory() { finish(); }

    // virtio::BalloonMemory
    Release release(Gpa granule) override;
    bool reclaim(Gpa granule) override;
    void cancel() override;

    /// The guest met RAM that is not mapped. True: it is now, try again; false: there is no memory for it, or
    /// it is on its way out, try later. Any CPU, no lock held.
    [[nodiscard]] bool resolve(Gpa gpa);

    // --- on the boot CPU, no lock held
    // ---------------------------------------------------------------------------------------------

    /// Takes the next step. True: what was pending is settled.
    bool service();
    /// Ends what is under way, as nothing uses the VM's memory any more.
    void finish();
    /// No timer fires any more, but for one that may be under way.
    void stop() { clock_.disarm(*this); }

private:
    struct Leaving {
        Gpa granule;
        std::byte* where;
    };

    void fire() override { owner_.spare_memory_waits(); }
    void call_soon();
    /// Detaches and unmaps what is wanted.
    void begin();
    /// Zeroes some of what is leaving, or gives it back. False: nothing is left.
    bool finish_some();

    GuestMemory& memory_;
    GuestAddressSpace& space_;
    Clock& clock_;
    Owner& owner_;
    std::atomic<std::uint64_t> not_before_{0};  ///< host TSC: the next step
    std::atomic<bool> wanted_{false};           ///< list_ has something

    struct List {
        std::array<Gpa, kBatch> granules{};
        std::size_t count{0};
    };
    /// What shall go. Also held where granules are mapped or unmapped, so that what is leaving stays
    /// unmapped.
    Guarded<List, Rank::memory> list_;
    // The boot CPU's:
    std::array<Leaving, kBatch> leaving_{};
    std::size_t leaving_count_{0};
    std::uint64_t zeroed_{0};  ///< bytes of the last one of these
};

}  // namespace hv

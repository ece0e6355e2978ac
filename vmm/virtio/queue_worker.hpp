// SPDX-License-Identifier: MIT
// Works on one queue, chain by chain in their order, on the CPU of the vCPU that rings the doorbell: as far
// as a budget goes, after which that vCPU goes on and a timer continues, so that a guest cannot keep a CPU.
// What is done with a chain is the client's affair.
#pragma once

#include "vmm/base/expected.hpp"
#include "vmm/base/timer.hpp"
#include "vmm/base/turn.hpp"
#include "vmm/virtio/virtio_device.hpp"
#include "vmm/virtio/virtqueue.hpp"

#include <cstdint>

namespace hv::virtio {

/// What a turn has cost so far, and when it may go on.
struct Effort {
    std::uint64_t spent{0};     ///< in the unit of the worker's budget
    std::uint64_t retry_at{0};  ///< Step::waits: host TSC; 0: somebody calls process()
};

class QueueClient {
public:
    enum class Step : std::uint8_t {
        empty,
        handled,
        waits,       ///< the next chain cannot be handled yet, and is still in the ring
        unfinished,  ///< the budget is used up in the midst of the next chain, which is still in the ring
        broken,      ///< the driver broke a rule
        absent,      ///< memory of the next chain is not there yet
    };
    /// What follows from a pop() that brought nothing.
    static Step step_without(Virtqueue::Pop popped) {
        return popped == Virtqueue::Pop::empty    ? Step::empty
               : popped == Virtqueue::Pop::absent ? Step::absent
                                                  : Step::broken;
    }
    /// Takes the next chain from `ring` and answers it, if there is one. One CPU at a time, without a lock.
    virtual Step next(unsigned queue, Virtqueue& ring, Effort& effort) = 0;

protected:
    ~QueueClient() = default;
};

class QueueWorker final : private Timer {
public:
    /// All outlive this. `budget`: what the chains of one turn may cost.
    QueueWorker(QueueClient& client, std::uint64_t budget, const GuestMemory& memory, Clock& clock)
        : client_{client}, budget_{budget}, clock_{clock}, ring_{memory} {}
    ~QueueWorker() { stop(); }

    /// `layout` of size 0: the driver enabled no such queue. Errors as Virtqueue::start().
    Expected<void> start(unsigned queue, const QueueLayout& layout, std::uint64_t features,
                         VirtioTransport& transport);
    /// Returns once nobody works on the queue any more.
    void stop();
    /// Works on the queue, unless another CPU does, who then looks again.
    void process();

private:
    static constexpr unsigned kChains = Virtqueue::kMaxSize;  ///< of one turn, whatever they cost
    static constexpr unsigned kRounds = 4;

    enum class Progress : std::uint8_t { done, waits, more };
    Progress work(Effort& effort);
    void fire() override { process(); }

    QueueClient& client_;
    const std::uint64_t budget_;
    Clock& clock_;
    // Set while the turn is closed:
    unsigned queue_{0};
    VirtioTransport* transport_{nullptr};
    Virtqueue ring_;  ///< whoever has the turn
    Turn turn_{Turn::Initially::closed};
};

}  // namespace hv::virtio

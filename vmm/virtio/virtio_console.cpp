// SPDX-License-Identifier: MIT
#include "vmm/virtio/virtio_console.hpp"

#include "vmm/virtio/piece_list.hpp"

#include <algorithm>
#include <new>
#include <string_view>

namespace hv::virtio {
namespace {

constexpr std::uint64_t kEmergencyWrite = 8;  ///< [virtio1.2 5.3.4 Device configuration layout]

}  // namespace

Expected<std::unique_ptr<VirtioConsole>> VirtioConsole::create(CharSink& sink, const GuestMemory& memory,
                                                               Clock& clock) {
    std::unique_ptr<VirtioConsole> device{new (std::nothrow) VirtioConsole{sink, memory, clock}};
    if (device == nullptr)
        return Unexpected{Error::no_memory};
    return device;
}

VirtioConsole::~VirtioConsole() {
    stop();
}

void VirtioConsole::write_config(std::uint64_t offset, unsigned, std::uint64_t value) {
    if (offset != kEmergencyWrite)
        return;
    const char character = static_cast<char>(value);
    sink_.put({&character, 1});
}

bool VirtioConsole::start(std::uint64_t features, std::span<const QueueLayout> layouts) {
    printed_ = 0;
    const bool can_print =
        output_.start(kTransmitQueue, layouts[kTransmitQueue], features, transport()).has_value();
    const QueueLayout& receive = layouts[kReceiveQueue];
    return input_.with([&](Input& input) {
        input.live = receive.size != 0 && input.ring.start(receive, features).has_value();
        return input.live || receive.size == 0;
    }) && can_print;
}

void VirtioConsole::stop() {
    output_.stop();
    input_.with([](Input& input) {
        input.live = false;
        input.ring.stop();
        input.waiting.clear();
    });
    clock_.disarm(retry_);
}

void VirtioConsole::queue_notified(unsigned queue) {
    if (queue == kTransmitQueue)
        output_.process();
    else
        deliver();
}

// --- output
// -----------------------------------------------------------------------------------------------------------------

QueueClient::Step VirtioConsole::next(unsigned, Virtqueue& ring, Effort& effort) {
    Chain chain{};
    if (const auto popped = ring.pop(pieces_, chain); popped != Virtqueue::Pop::ready)
        return step_without(popped);
    skip_front(chain.readable, printed_);
    std::array<char, 256> text;
    while (const std::size_t size = take_front(chain.readable, std::as_writable_bytes(std::span{text}))) {
        sink_.put({text.data(), size});
        printed_ += size;
        effort.spent += size;
        if (effort.spent >= kTurnBytes && !chain.readable.empty()) {
            ring.unpop(1);
            return Step::unfinished;
        }
    }
    printed_ = 0;
    ring.push(chain.head, 0);
    return Step::handled;
}

// --- input
// ------------------------------------------------------------------------------------------------------------------

bool VirtioConsole::takes_input() {
    return input_.with([](const Input& input) { return input.live; });
}

bool VirtioConsole::receive(char character) {
    const bool taken = input_.with([&](Input& input) {
        return input.waiting.put(std::as_bytes(std::span{&character, 1})) == 1;
    });
    deliver();
    return taken;
}

void VirtioConsole::deliver() {
    conclude(input_.with([&](Input& input) { return deliver(input); }));
}

VirtioConsole::Outcome VirtioConsole::deliver(Input& input) {
    if (!input.live || input.ring.broken())
        return {};
    Chain chain{};
    input.ring.suppress_notifications();
    while (!input.waiting.empty()) {
        const auto popped = input.ring.pop(input.pieces, chain);
        if (popped == Virtqueue::Pop::empty) {
            if (!input.ring.request_notifications())
                break;
            continue;
        }
        if (popped == Virtqueue::Pop::absent) {
            clock_.arm_after(retry_, Virtqueue::kRetryNs);
            break;
        }
        if (popped == Virtqueue::Pop::broken || chain.writable_size == 0) {
            input.ring.set_broken();
            return {input.ring.publish(), true};
        }
        fill(input, chain);
    }
    return {input.ring.publish(), false};
}

void VirtioConsole::fill(Input& input, const Chain& chain) {
    std::uint32_t written = 0;
    for (const Piece& piece : chain.writable)
        written += static_cast<std::uint32_t>(input.waiting.take({piece.data, piece.size}));
    input.ring.push(chain.head, written);
}

void VirtioConsole::conclude(Outcome outcome) {
    if (outcome.broken)
        transport().needs_reset();
    if (outcome.interrupt)
        transport().queue_interrupt(kReceiveQueue);
}

}  // namespace hv::virtio

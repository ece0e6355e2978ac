// SPDX-License-Identifier: MIT
#include "drivers/net/e1000.hpp"

#include "drivers/net/e1000_defs.hpp"
#include "drivers/net/received_frame.hpp"
#include "vmm/base/log.hpp"
#include "vmm/base/text.hpp"

#include <new>
#include <utility>

namespace hv::netdrv {
namespace {

/// Interrupts a second: while each look finds no more than these, and otherwise.
constexpr unsigned kFewFrames = 4;
constexpr std::uint64_t kFewBytes = 1024;
constexpr std::uint32_t kQuickRate = 50'000;
constexpr std::uint32_t kBulkRate = 8'000;

constexpr std::uint64_t kMillisecond = 1'000'000;
constexpr std::uint64_t kWatchPeriod = 2'000 * kMillisecond;
/// So many looks without progress, 4 s in all: the device hangs.
constexpr unsigned kIdleLooks = 2;
/// Between the steps of a reset, which has so many at most.
constexpr std::uint64_t kResetStep = 10 * kMillisecond;
static_assert(kResetStep >= E1000Chip::kResetTimeNs);
constexpr unsigned kQuietSteps = 8;
constexpr unsigned kResetSteps = 100;

OffloadSupport both(const OffloadSupport& a, const OffloadSupport& b) {
    return {.checksum = a.checksum && b.checksum,
            .tcp4 = a.tcp4 && b.tcp4,
            .tcp6 = a.tcp6 && b.tcp6,
            .ecn = a.ecn && b.ecn,
            .max_offset = std::min(a.max_offset, b.max_offset)};
}

/// The 8254x's IPv6 is not for all of its models. None clears CWR after a first segment.
constexpr OffloadSupport support_of(E1000Kind kind) {
    return {.checksum = true,
            .tcp4 = true,
            .tcp6 = kind == E1000Kind::i82574,
            .ecn = false,
            .max_offset = E1000TransmitRing::kMaxOffset};
}

}  // namespace

E1000::E1000(const E1000Chip& chip, Clock& clock, std::string_view name, const OffloadSupport& offloads,
             const MacAddress& mac, E1000TransmitRing transmit_ring, E1000ReceiveRing receive_ring)
    : chip_{chip},
      clock_{clock},
      name_{name},
      offloads_{offloads},
      mac_{mac},
      transmitter_{Transmitter{std::move(transmit_ring), false}},
      receive_ring_{std::move(receive_ring)} {}

Expected<std::unique_ptr<E1000>> E1000::create(DeviceRegisters& registers, DmaPool& pool, Clock& clock,
                                               std::string_view name, Kind kind,
                                               const OffloadSupport& allowed) {
    if (registers.size() < e1000::kRegistersSize)
        return Unexpected{Error::invalid_argument};
    E1000Chip chip{registers, kind};
    if (chip.gone())
        return Unexpected{Error::io_error};
    HV_TRY(chip.reset(clock));
    const MacAddress mac = HV_TRY(chip.mac(clock, name));
    auto transmit_ring = HV_TRY(E1000TransmitRing::create(pool));
    auto receive_ring = HV_TRY(E1000ReceiveRing::create(pool));
    std::unique_ptr<E1000> device{new (std::nothrow)
                                      E1000{chip, clock, name, both(support_of(kind), allowed), mac,
                                            std::move(transmit_ring), std::move(receive_ring)}};
    if (device == nullptr)
        return Unexpected{Error::no_memory};
    device->open();
    return device;
}

E1000::~E1000() {
    clock_.disarm(watch_);
    clock_.disarm(again_);
    if (state() == State::gone)
        return;
    chip_.stop();
    chip_.begin_reset();
}

std::string_view E1000::model() const {
    return chip_.kind() == Kind::i82574 ? "Intel 82574L" : "Intel 82540EM";
}

void E1000::open() {
    chip_.configure(offloads_.checksum);
    interrupt_rate_ = kQuickRate;
    chip_.limit_interrupts(kQuickRate);
    receive_ring_.attach(chip_);
    transmitter_.with([&](Transmitter& transmitter) {
        transmitter.ring.attach(chip_);
        transmitter.watched = false;
        chip_.enable_transmitter();
        advance(State::resetting, State::working);
    });
    if (user_.load() != nullptr)
        chip_.enable_receiver();
    update_link();
}

void E1000::start(NetUser& user) {
    user_.store(&user);
    if (state() != State::working)
        return;  // the end of the reset does it
    chip_.enable_receiver();
    update_link();
}

void E1000::update_link() {
    const E1000Chip::Link link = chip_.link();
    if (link_up_.exchange(link.up) == link.up)
        return;
    if (!link.up)
        return log::warning(log::Topic::net, "%.*s: link down", width(name_), name_.data());
    log::info(log::Topic::net, "%.*s: link up, %u Mb/s, %s duplex", width(name_), name_.data(), link.megabits,
              link.full_duplex ? "full" : "half");
    if (NetUser* const user = user_.load())
        user->link_restored();
}

void E1000::set_gone() {
    if (state_.exchange(State::gone) == State::gone)
        return;
    link_up_.store(false, std::memory_order_relaxed);
    log::error(log::Topic::net, "%.*s: the device does not answer any more and is given up", width(name_),
               name_.data());
}

void E1000::service() {
    if (state() != State::working)
        return;
    const std::uint32_t causes = chip_.read(e1000::ICR);
    if (causes == ~std::uint32_t{0} && chip_.gone())
        return set_gone();
    if ((causes & e1000::ICR_LSC) != 0)
        update_link();
    if ((causes & e1000::ICR_RXO) != 0)
        counters_.missed(chip_.read(e1000::MPC));
    receive();
    transmitter_.with([](Transmitter& transmitter) { transmitter.ring.reclaim(); });
}

// --- sending
// ---------------------------------------------------------------------------------------------------------------

bool E1000::transmit(const Frame& frame) {
    using Put = E1000TransmitRing::Put;
    bool watch = false;
    const Put put = transmitter_.with([&](Transmitter& transmitter) {
        if (state() != State::working)
            return Put::refused;
        const Put result = transmitter.ring.put(frame);
        if (result == Put::queued) {
            transmitter.ring.notify(chip_);
            watch = !std::exchange(transmitter.watched, true);
        }
        return result;
    });
    if (watch)
        clock_.arm_after(watch_, kWatchPeriod);
    if (put == Put::no_room)
        counters_.no_room();
    if (put != Put::queued)
        return false;
    counters_.sent(frame.size);
    return true;
}

// --- receiving
// -------------------------------------------------------------------------------------------------------------

void E1000::receive() {
    FrameSink* const sink = user_.load();
    if (sink == nullptr || !receive_turn_.enter())
        return;
    unsigned left = kReceiveBudget;
    do {
        if (state() != State::working)
            return receive_turn_.abandon();  // a reset ends with a look at the ring
        left -= receive(left, *sink);
        if (left == 0) {
            // In this order: a timer that finds us still at work would be lost.
            receive_turn_.abandon();
            return clock_.arm_after(again_, 0);
        }
    } while (receive_turn_.leave());
}

unsigned E1000::receive(unsigned budget, FrameSink& sink) {
    using Arrival = E1000ReceiveRing::Arrival;
    unsigned looked_at = 0;
    std::uint64_t bytes = 0;
    for (; looked_at < budget; ++looked_at) {
        const E1000ReceiveRing::Next next = receive_ring_.next();
        if (next.arrival == Arrival::none)
            break;
        bytes += next.data.size();
        if (next.arrival == Arrival::frame)
            deliver(next, sink);
        else if (next.arrival == Arrival::damaged)
            counters_.error();
        receive_ring_.release(chip_);
    }
    receive_ring_.flush(chip_);
    if (looked_at > 0)
        moderate(looked_at, bytes);
    return looked_at;
}

void E1000::moderate(unsigned frames, std::uint64_t bytes) {
    const std::uint32_t rate = frames <= kFewFrames && bytes <= kFewBytes ? kQuickRate : kBulkRate;
    if (std::exchange(interrupt_rate_, rate) != rate)
        chip_.limit_interrupts(rate);
}

void E1000::deliver(const E1000ReceiveRing::Next& next, FrameSink& sink) {
    counters_.received(static_cast<std::uint32_t>(next.data.size()));
    hand_on(next.data, {.data_valid = offloads_.checksum && next.checksum_good}, sink);
}

// --- recovery
// --------------------------------------------------------------------------------------------------------------

void E1000::watch() {
    if (chip_.gone())
        return set_gone();
    switch (state()) {
    case State::working: return check_progress();
    case State::stopping:
    case State::resetting: return continue_reset();
    case State::gone: return;
    }
}

void E1000::check_progress() {
    bool empty = false;
    const std::uint64_t completed = transmitter_.with([&](Transmitter& transmitter) {
        transmitter.ring.reclaim();
        empty = transmitter.ring.empty();
        transmitter.watched = !empty;
        return transmitter.ring.completed();
    });
    update_link();
    const bool hangs = !empty && completed == completed_ && link_up();
    completed_ = completed;
    idle_looks_ = hangs ? idle_looks_ + 1 : 0;
    if (idle_looks_ >= kIdleLooks)
        return begin_reset();
    if (!empty)
        clock_.arm_after(watch_, kWatchPeriod);
}

void E1000::begin_reset() {
    // Under the lock: nobody sends any more.
    if (!transmitter_.with([&](Transmitter&) { return advance(State::working, State::stopping); }))
        return;
    log::warning(log::Topic::net, "%.*s: sends nothing any more, is reset", width(name_), name_.data());
    counters_.device_reset();
    idle_looks_ = 0;
    reset_steps_ = 0;
    chip_.stop();
    clock_.arm_after(watch_, kResetStep);
}

void E1000::continue_reset() {
    ++reset_steps_;
    if (state() == State::stopping) {
        const bool quiet = chip_.quiet() || reset_steps_ >= kQuietSteps;
        // Whoever still receives goes on first; from now on the turn is the reset's.
        if (quiet && receive_turn_.enter() && advance(State::stopping, State::resetting)) {
            chip_.begin_reset();
            reset_steps_ = 0;
        }
    } else if (chip_.reset_done()) {
        open();
        receive_turn_.abandon();
        return receive();
    } else if (reset_steps_ >= kResetSteps) {
        return set_gone();
    }
    clock_.arm_after(watch_, kResetStep);
}

}  // namespace hv::netdrv

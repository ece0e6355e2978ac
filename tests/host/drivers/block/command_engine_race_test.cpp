// SPDX-License-Identifier: MIT
// Requests, completions, time-outs and resets on several CPUs at once. The hardware here has no lock of its
// own: what the engine promises its hardware is all that keeps it whole, which the thread sanitizer watches.
#include "catch.hpp"
#include "drivers/block/command_engine.hpp"
#include "fakes/arena_frames.hpp"
#include "fakes/board.hpp"
#include "fakes/machine.hpp"

#include <array>
#include <atomic>
#include <chrono>
#include <deque>
#include <functional>
#include <random>
#include <thread>
#include <utility>
#include <vector>

namespace {

using namespace hv;
using namespace hv::block;
using Operation = BlockRequest::Operation;

constexpr unsigned kCpus = 3;
constexpr unsigned kSlots = 4;
constexpr std::uint64_t kBlocks = 4096;

class RacingHardware final : public CommandHardware {
public:
    void issue(unsigned channel, unsigned slot, const BlockCommand&) override {
        Channel& at = channels_[channel];
        broken_promises += at.in_use[slot] || resetting_ || left_alone ? 1 : 0;
        at.in_use[slot] = true;
        at.staged.push_back(slot);
    }
    void commit(unsigned channel) override {
        Channel& at = channels_[channel];
        broken_promises += resetting_ || left_alone ? 1 : 0;
        for (const unsigned slot : at.staged)
            at.state[slot] = State::running;
        at.staged.clear();
    }
    std::size_t reap(unsigned channel, std::span<Completion> out) override {
        Channel& at = channels_[channel];
        broken_promises += resetting_ || left_alone ? 1 : 0;
        call_hook();
        std::size_t count = 0;
        for (unsigned slot = 0; slot < kSlots && count < out.size(); ++slot) {
            if (!at.in_use[slot] || at.state[slot] != State::ended)
                continue;
            at.in_use[slot] = false;
            at.state[slot] = State::idle;
            out[count++] = {slot, BlockStatus::ok};
        }
        return count;
    }
    [[nodiscard]] bool needs_reset(Look look) override { return look == Look::device && stopped; }
    void begin_reset() override {
        broken_promises += left_alone ? 1 : 0;
        resetting_ = true;
        polls_ = 0;
        for (Channel& at : channels_) {
            at.in_use = {};
            at.staged.clear();
            for (auto& state : at.state)
                state = State::idle;
        }
        stopped = false;
        ++resets;
    }
    ResetProgress poll_reset() override {
        broken_promises += left_alone ? 1 : 0;
        call_hook();
        if (vanishes)
            return ResetProgress::gone;
        if (++polls_ < 2)
            return ResetProgress::pending;
        resetting_ = false;
        return ResetProgress::done;
    }

    /// The engine has been stopped: nobody else is at it.
    void take_over() {
        left_alone = true;
        resetting_ = false;
        for (Channel& at : channels_)
            at.staged.clear();
    }

    /// The device ends the command in this slot, if there is one; or loses it.
    void end(unsigned channel, unsigned slot, bool loses) {
        State running = State::running;
        channels_[channel].state[slot].compare_exchange_strong(running, loses ? State::idle : State::ended);
    }

    std::function<void()> hook;  ///< called once, by who takes completions or goes on with a reset
    std::atomic<bool> stopped{false};
    std::atomic<bool> vanishes{false};
    std::atomic<bool> left_alone{false};
    std::atomic<unsigned> resets{0};
    std::atomic<unsigned> broken_promises{0};

private:
    void call_hook() {
        if (hook)
            std::exchange(hook, nullptr)();
    }

    enum class State : std::uint8_t { idle, running, ended };
    struct Channel {
        std::array<bool, kSlots> in_use{};
        std::vector<unsigned> staged;
        std::array<std::atomic<State>, kSlots> state{};  ///< as the device has it
    };
    std::array<Channel, kCpus> channels_{};
    bool resetting_{false};
    unsigned polls_{0};
};

/// Requests of one CPU, each used again once it has completed.
struct Client {
    struct Item {
        BlockRequest request{};
        std::atomic<bool> pending{false};
        Client* client{};
    };
    explicit Client(BlockDevice& target) : disk{target} {
        for (Item& item : items) {
            item.client = this;
            item.request.context = &item;
            item.request.complete = [](BlockRequest& request, BlockStatus status) {
                auto& done = *static_cast<Item*>(request.context);
                request.sector = ~std::uint64_t{0};  // it is ours again
                ++(status == BlockStatus::ok ? done.client->succeeded : done.client->failed);
                done.client->completed_twice += done.pending.exchange(false) ? 0 : 1;
            };
        }
    }
    void submit_some(std::mt19937& random) {
        for (Item& item : items) {
            if (item.pending)
                continue;
            item.pending = true;
            item.request.user = static_cast<std::uint8_t>(random() % kBlockUsers);
            item.request.operation = random() % 4 == 0 ? Operation::flush : Operation::discard;
            item.request.sector = random() % kBlocks / 2;
            item.request.sector_count =
                item.request.operation == Operation::flush ? 0 : 1 + random() % 200;  // up to 4 commands
            ++submitted;
            disk.submit(item.request);
        }
    }
    [[nodiscard]] bool idle() const {
        return std::none_of(items.begin(), items.end(), [](const Item& item) { return item.pending.load(); });
    }

    BlockDevice& disk;
    std::array<Item, 8> items{};
    unsigned submitted{0};
    std::atomic<unsigned> succeeded{0}, failed{0}, completed_twice{0};
};

struct Race {
    explicit Race(bool shared_interrupt)
        : engine{CommandEngine::create(hardware, clock, pool,
                                       {"race0", kCpus, kSlots, shared_interrupt, 2'000'000'000})
                     .value()},
          disk{*engine
                    ->add_disk(
                        {{}, {}, kBlocks, kSectorSize, false, {8, 64, 4, 1 << 20, 4, 0, true, true, true}})
                    .value()} {
        for (unsigned i = 0; i < kCpus; ++i)
            clients.emplace_back(disk);
    }
    void cpu(unsigned index) {
        fake::set_cpu(index);
        std::mt19937 random{index};
        while (stops && !over) {
            clients[index].submit_some(random);
            engine->service();
        }
        if (stops)
            return;
        const Client& client = clients[index];
        const auto lasts = [&] { return (hardware.vanishes ? client.failed : client.succeeded) == 0; };
        for (unsigned round = 0; round < kRounds || lasts(); ++round) {
            clients[index].submit_some(random);
            engine->service();
        }
        while (!clients[index].idle())
            engine->service();
    }
    void device() {
        fake::set_cpu(kCpus);
        std::mt19937 random{99};
        while (!over) {
            const auto what = random();
            hardware.end(what % kCpus, what / 8 % kSlots, what % 512 == 0);
            if (what % 2048 == 1)
                hardware.stopped = true;
        }
    }
    void timers() {
        fake::set_cpu(kCpus + 1);
        while (!over) {
            clock.advance(1'000'000);
            std::this_thread::yield();
        }
    }
    void run() {
        std::vector<std::thread> others;
        others.emplace_back([this] { device(); });
        others.emplace_back([this] { timers(); });
        std::vector<std::thread> cpus;
        for (unsigned i = 0; i < kCpus; ++i)
            cpus.emplace_back([this, i] { cpu(i); });
        if (stops) {
            while (hardware.resets == 0)
                std::this_thread::yield();
            fake::set_cpu(kCpus + 2);
            engine->stop();
            fake::set_cpu(0);
            hardware.take_over();
            std::this_thread::sleep_for(std::chrono::milliseconds{5});
            over = true;
        }
        for (std::thread& thread : cpus)
            thread.join();
        over = true;
        for (std::thread& thread : others)
            thread.join();
    }

    static constexpr unsigned kRounds = 2000;
    fake::ArenaFrames frames;
    DmaPool pool{frames};
    fake::ManualClock clock;
    RacingHardware hardware;
    std::unique_ptr<CommandEngine> engine;
    HardwareDisk& disk;
    std::deque<Client> clients;
    bool stops{false};  ///< the engine is, while everybody goes on
    std::atomic<bool> over{false};
};

}  // namespace

TEST_CASE("requests, completions, time-outs and resets race without harm", "[block]") {
    for (const bool shared : {false, true}) {
        Race race{shared};
        race.run();
        CHECK(race.hardware.broken_promises == 0);
        CHECK(race.hardware.resets > 0);
        for (const Client& client : race.clients) {
            CHECK(client.completed_twice == 0);
            CHECK(client.succeeded > 0);
            CHECK(client.succeeded + client.failed == client.submitted);
        }
    }
}

TEST_CASE("a device that vanishes under load leaves no request behind", "[block]") {
    Race race{false};
    race.hardware.vanishes = true;
    race.run();
    CHECK(race.engine->gone());
    for (const Client& client : race.clients) {
        CHECK(client.completed_twice == 0);
        CHECK(client.failed > 0);
        CHECK(client.succeeded + client.failed == client.submitted);
    }
}

TEST_CASE("nobody is at a device once its engine was stopped", "[block]") {
    for (unsigned round = 0; round < 40; ++round) {
        Race race{round % 2 == 0};
        race.stops = true;
        race.run();
        CHECK(race.hardware.broken_promises == 0);
        for (const Client& client : race.clients)
            CHECK(client.completed_twice == 0);
    }
}

TEST_CASE("who is at the device when its engine is stopped is waited for", "[block]") {
    Race race{false};
    fake::set_cpu(0);
    std::mt19937 random{1};
    race.clients[0].submit_some(random);
    const bool in_reset = GENERATE(false, true);
    if (in_reset) {
        race.hardware.stopped = true;
        race.engine->service();
        REQUIRE(race.hardware.resets == 1);
        race.clock.advance(1'000'000);  // one more step, and it is done
    }
    std::atomic<bool> inside{false}, returned{false};
    bool overtaken = false;
    race.hardware.hook = [&] {
        inside = true;
        while (!race.engine->gone())
            std::this_thread::yield();
        std::this_thread::sleep_for(std::chrono::milliseconds{20});
        overtaken = returned;
    };
    std::thread other{[&] {
        fake::set_cpu(0);
        if (in_reset)
            race.clock.advance(1'000'000);
        else
            race.engine->service();
    }};
    while (!inside)
        std::this_thread::yield();
    fake::set_cpu(1);
    race.engine->stop();
    returned = true;
    race.hardware.left_alone = true;
    other.join();
    fake::set_cpu(0);
    CHECK_FALSE(overtaken);
    // What it has armed since comes to nothing.
    race.clock.advance(2'000'000'000);
    CHECK(race.clock.armed() == 0);
    CHECK(race.engine->gone());
    CHECK(race.hardware.broken_promises == 0);
}

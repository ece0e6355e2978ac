// SPDX-License-Identifier: MIT
#include "catch.hpp"
#include "fakes/virtio_driver.hpp"
#include "vmm/virtio/virtio_console.hpp"

#include <string>

namespace {

using namespace hv;
using namespace hv::virtio;

constexpr std::uint64_t kRing = VIRTIO_F_VERSION_1 | VIRTIO_F_INDIRECT_DESC | VIRTIO_F_EVENT_IDX;
constexpr Gpa kOutput{0x20'0000};
constexpr Gpa kInput{0x40'0000};

class Text final : public CharSink {
public:
    void put(std::string_view piece) override { text += piece; }
    std::string text;
};

struct Guest {
    explicit Guest(std::uint64_t features = kRing) {
        REQUIRE(board.bridge.attach(1, transport));
        driver = std::make_unique<fake::VirtioDriver>(board, 1);
        driver->start(features, 64);
    }
    fake::DriverQueue& rx() { return driver->queues.at(0); }
    fake::DriverQueue& tx() { return driver->queues.at(1); }
    void print(std::string_view text, std::uint32_t piece = 4096) {
        board.memory.write(kOutput, std::as_bytes(std::span{text})).value();
        std::vector<fake::DriverBuffer> chain;
        const auto size = static_cast<std::uint32_t>(text.size());
        for (std::uint32_t done = 0; done < size; done += piece)
            chain.push_back({kOutput + done, std::min(piece, size - done), false});
        tx().add(chain);
        driver->kick(1);
    }
    /// A buffer of `size` bytes for input, in two pieces.
    void fill(std::uint32_t size) {
        rx().add({{kInput + 0x1000 * buffers, 1, true}, {kInput + 0x1000 * buffers + 1, size - 1, true}});
        ++buffers;
        driver->kick(0);
    }
    /// What the next buffer got.
    std::string take() {
        const auto used = rx().take_used();
        if (!used)
            return {};
        std::string text(used->length, '\0');
        board.memory.read(kInput + 0x1000 * taken++, std::as_writable_bytes(std::span{text})).value();
        return text;
    }
    void type(std::string_view text) {
        for (const char c : text)
            CHECK(device->receive(c));
    }
    bool needs_reset() { return (driver->status() & DEVICE_NEEDS_RESET) != 0; }

    fake::Board board;
    Text sink;
    std::unique_ptr<VirtioConsole> device{
        std::move(VirtioConsole::create(sink, board.memory, board.clock)).value()};
    VirtioPciTransport transport{*device, board.interrupts, &board.line};
    std::unique_ptr<fake::VirtioDriver> driver;
    std::uint64_t buffers{0}, taken{0};
};

}  // namespace

TEST_CASE("what the guest prints arrives in its order", "[virtio]") {
    for (const std::uint64_t features : {VIRTIO_F_VERSION_1, kRing}) {
        Guest guest{features};
        CHECK(guest.driver->read_config(2, 2) == 0x1043);
        guest.print("hello, ", 3);
        guest.print("world\n");
        CHECK(guest.sink.text == "hello, world\n");
        CHECK(guest.tx().take_used());
        CHECK(guest.tx().take_used());
        CHECK(guest.driver->interrupts(1) >= 1);
    }
}

TEST_CASE("a long text is printed in turns", "[virtio]") {
    Guest guest;
    std::string text(3 * VirtioConsole::kTurnBytes + 100, ' ');
    for (std::size_t i = 0; i < text.size(); ++i)
        text[i] = static_cast<char>('a' + i % 23);
    guest.print(text);
    CHECK(guest.sink.text == text.substr(0, VirtioConsole::kTurnBytes));
    CHECK_FALSE(guest.tx().take_used());
    while (guest.board.clock.run() != 0) {
    }
    CHECK(guest.sink.text == text);
    CHECK(guest.tx().take_used());
    // Exactly a turn's worth, after which the driver must still be heard.
    guest.sink.text.clear();
    guest.print(text.substr(0, VirtioConsole::kTurnBytes));
    guest.board.clock.run();
    guest.print("more");
    CHECK(guest.sink.text == text.substr(0, VirtioConsole::kTurnBytes) + "more");
}

TEST_CASE("a text that was interrupted by a reset does not go on", "[virtio]") {
    Guest guest;
    guest.print(std::string(2 * VirtioConsole::kTurnBytes, 'x'));
    guest.driver->start(kRing);
    guest.sink.text.clear();
    guest.print("anew");
    guest.board.clock.run();
    CHECK(guest.sink.text == "anew");
}

TEST_CASE("emergency writes need no queue", "[virtio]") {
    Guest guest;
    guest.driver->set_status(0);
    guest.device->write_config(8, 4, 'P');
    guest.device->write_config(8, 1, '!');
    guest.device->write_config(0, 4, 'x');
    CHECK(guest.sink.text == "P!");
    CHECK((guest.driver->offered() & VIRTIO_CONSOLE_F_EMERG_WRITE) != 0);
}

TEST_CASE("what is typed fills the driver's buffers", "[virtio]") {
    for (const std::uint64_t features : {VIRTIO_F_VERSION_1, kRing}) {
        Guest guest{features};
        CHECK(guest.device->takes_input());
        guest.fill(8);
        guest.type("a");
        CHECK(guest.take() == "a");
        CHECK(guest.driver->interrupts(0) == 1);
        // Without buffers it waits, and the doorbell for the next ones takes it along.
        guest.type("bcdefg");
        CHECK(guest.take().empty());
        guest.fill(4);
        CHECK(guest.take() == "bcde");
        guest.fill(4);
        CHECK(guest.take() == "fg");
        guest.fill(4);
        CHECK(guest.take().empty());
        guest.type("h");
        CHECK(guest.take() == "h");
    }
}

TEST_CASE("input is bounded, and gone after a reset", "[virtio]") {
    Guest guest;
    guest.type(std::string(VirtioConsole::kInputSize, 'x'));
    CHECK_FALSE(guest.device->receive('y'));
    guest.driver->set_status(0);
    CHECK_FALSE(guest.device->takes_input());
    guest.driver->start(kRing);
    guest.fill(8);
    guest.type("z");
    CHECK(guest.take() == "z");
}

TEST_CASE("a receive buffer without room breaks the queue", "[virtio]") {
    Guest guest;
    guest.rx().add({{kInput, 8, false}});
    guest.driver->kick(0);
    CHECK_FALSE(guest.needs_reset());
    guest.type("ab");
    CHECK(guest.needs_reset());
    guest.driver->start(kRing);
    guest.rx().put_head(77);
    guest.driver->kick(0);
    guest.type("a");
    CHECK(guest.needs_reset());
}

// SPDX-License-Identifier: MIT
#include "catch.hpp"
#include "fakes/virtio_driver.hpp"
#include "vmm/virtio/virtio_pci.hpp"

#include <random>

namespace {

using namespace hv;
using namespace hv::virtio;

constexpr std::uint64_t kRing = VIRTIO_F_VERSION_1 | VIRTIO_F_INDIRECT_DESC | VIRTIO_F_EVENT_IDX;

/// Two queues; counts doorbells and answers what is in the rings at once.
class TestDevice final : public VirtioDevice {
public:
    explicit TestDevice(const GuestMemory& memory) : rings{{Virtqueue{memory}, Virtqueue{memory}}} {}
    [[nodiscard]] std::uint16_t device_id() const override { return 42; }
    [[nodiscard]] std::uint64_t features() const override { return feature(0) | feature(1) | feature(40); }
    [[nodiscard]] bool accepts(std::uint64_t features) const override { return (features & 3) != 2; }
    [[nodiscard]] unsigned queue_count() const override { return 2; }
    [[nodiscard]] std::uint16_t max_queue_size(unsigned queue) const override { return queue == 0 ? 64 : 16; }
    [[nodiscard]] std::uint64_t read_config(std::uint64_t offset, unsigned size) const override {
        return read_bytes(std::as_bytes(std::span{config}), offset, size);
    }
    void write_config(std::uint64_t offset, unsigned size, std::uint64_t value) override {
        for (unsigned i = 0; i < size && offset + i < config.size(); ++i)
            config[offset + i] = static_cast<std::uint8_t>(value >> (8 * i));
    }
    [[nodiscard]] bool start(std::uint64_t features, std::span<const QueueLayout> layouts) override {
        negotiated = features;
        running = true;
        bool usable = true;
        for (unsigned i = 0; i < 2; ++i) {
            enabled[i] = layouts[i].size != 0;
            usable = (!enabled[i] || rings[i].start(layouts[i], features)) && usable;
        }
        if (interrupts_at_start)
            transport().queue_interrupt(0);
        return usable;
    }
    void stop() override { running = false; }
    [[nodiscard]] bool drained() const override { return is_drained; }
    void queue_notified(unsigned queue) override {
        ++doorbells[queue];
        if (!running || !enabled[queue])
            return;
        std::array<Piece, 8> pieces{};
        Chain chain{};
        while (rings[queue].pop(pieces, chain) == Virtqueue::Pop::ready)
            rings[queue].push(chain.head, 1);
        if (rings[queue].broken())
            transport().needs_reset();
        else if (rings[queue].publish())
            transport().queue_interrupt(queue);
    }
    using VirtioDevice::transport;

    std::array<Virtqueue, 2> rings;
    std::array<bool, 2> enabled{};
    std::array<unsigned, 2> doorbells{};
    std::array<std::uint8_t, 6> config{1, 2, 3, 4, 5, 6};
    std::uint64_t negotiated{0};
    bool running{false};
    bool is_drained{true};
    bool interrupts_at_start{false};
};

struct Machine {
    Machine() { REQUIRE(board.bridge.attach(3, transport)); }
    fake::Board board;
    TestDevice device{board.memory};
    VirtioPciTransport transport{device, board.interrupts, &board.line};
};

}  // namespace

TEST_CASE("the function looks as a modern virtio device must", "[virtio]") {
    Machine machine;
    fake::VirtioDriver driver{machine.board, 3};
    CHECK(driver.read_config(0, 4) == 0x106a'1af4);
    CHECK(driver.read_config(pci::kRevision, 1) == 1);
    CHECK(driver.common(18, 2) == 2);
    CHECK(driver.common(18, 1) == 2);
    CHECK(driver.offered() == (kRing | feature(0) | feature(1) | feature(40)));
    CHECK(driver.common(24, 2) == 64);
    driver.set_common(22, 2, 1);
    CHECK(driver.common(24, 2) == 16);
    CHECK(driver.common(30, 2) == 1);
    driver.set_common(22, 2, 2);
    CHECK(driver.common(24, 2) == 0);
    driver.set_common(0, 4, 2);
    CHECK(driver.common(4, 4) == 0);
}

TEST_CASE("features are accepted only if offered, consistent and of version 1", "[virtio]") {
    Machine machine;
    fake::VirtioDriver driver{machine.board, 3};
    CHECK(driver.negotiate(kRing | 1));
    CHECK_FALSE(driver.negotiate(1));
    CHECK_FALSE(driver.negotiate(kRing | feature(2)));
    CHECK_FALSE(driver.negotiate(kRing | feature(63)));
    CHECK_FALSE(driver.negotiate(kRing | 2));
    driver.driver_ok();
    CHECK((driver.status() & DRIVER_OK) == 0);
    CHECK_FALSE(machine.device.running);
    CHECK(driver.negotiate(VIRTIO_F_VERSION_1 | feature(40)));
    driver.set_common(12, 4, 0);  // too late
    driver.driver_ok();
    CHECK(machine.device.running);
    CHECK(machine.device.negotiated == (VIRTIO_F_VERSION_1 | feature(40)));
}

TEST_CASE("each queue has its own doorbell and vector", "[virtio]") {
    Machine machine;
    fake::VirtioDriver driver{machine.board, 3};
    driver.start(kRing, 16);
    machine.device.doorbells = {};
    driver.queues.at(1).add({{Gpa{0x4000}, 1, true}});
    driver.kick(1);
    CHECK(machine.device.doorbells == std::array<unsigned, 2>{0, 1});
    CHECK(driver.interrupts(1) == 1);
    CHECK(driver.interrupts(0) == 0);
    CHECK(driver.queues.at(1).take_used());
    driver.notify(2);
    driver.notify(500);
    CHECK(machine.device.doorbells == std::array<unsigned, 2>{0, 1});
}

TEST_CASE("buffers made available before DRIVER_OK are seen at DRIVER_OK", "[virtio]") {
    Machine machine;
    fake::VirtioDriver driver{machine.board, 3};
    REQUIRE(driver.negotiate(kRing));
    driver.add_queue(0, 16);
    driver.queues.at(0).add({{Gpa{0x4000}, 1, true}});
    driver.queues.at(0).publish();
    driver.driver_ok();
    CHECK(driver.queues.at(0).take_used());
    CHECK(machine.device.rings[1].broken());  // not enabled, not started
    CHECK((driver.status() & DEVICE_NEEDS_RESET) == 0);
}

TEST_CASE("a settled queue cannot be moved, and sizes are checked", "[virtio]") {
    Machine machine;
    fake::VirtioDriver driver{machine.board, 3};
    REQUIRE(driver.negotiate(kRing));
    driver.set_common(22, 2, 0);
    for (const std::uint64_t bad : {0, 3, 128, 0xffff}) {
        driver.set_common(24, 2, bad);
        CHECK(driver.common(24, 2) == 64);
    }
    driver.add_queue(0, 32);
    const auto address = driver.common(32, 8);
    driver.set_common(32, 8, 0x1000);
    driver.set_common(24, 2, 8);
    driver.set_common(28, 2, 0);
    CHECK(driver.common(32, 8) == address);
    CHECK(driver.common(24, 2) == 32);
    CHECK(driver.common(28, 2) == 1);
}

TEST_CASE("a queue outside RAM needs a reset at once", "[virtio]") {
    Machine machine;
    fake::VirtioDriver driver{machine.board, 3};
    REQUIRE(driver.negotiate(kRing));
    driver.enable_msix();
    driver.add_queue(0, 16);
    driver.set_common(22, 2, 1);
    driver.set_common(32, 8, ~0ull << 12);
    driver.set_common(28, 2, 1);
    driver.driver_ok();
    CHECK((driver.status() & DEVICE_NEEDS_RESET) != 0);
    CHECK(driver.config_interrupts() == 1);
    driver.set_status(0);
    CHECK(driver.status() == 0);
}

TEST_CASE("without MSI-X interrupts come by the pin until ISR is read", "[virtio]") {
    Machine machine;
    fake::VirtioDriver driver{machine.board, 3};
    REQUIRE(driver.negotiate(kRing));
    driver.driver_ok();
    machine.device.transport().queue_interrupt(0);
    CHECK(machine.board.line.level);
    CHECK(driver.isr() == 1);
    CHECK_FALSE(machine.board.line.level);
    CHECK(driver.isr() == 0);
    const auto generation = driver.common(21, 1);
    machine.device.transport().config_changed();
    CHECK(driver.common(21, 1) != generation);
    machine.device.transport().queue_interrupt(1);
    CHECK(driver.isr() == 3);
    machine.device.transport().queue_interrupt(0);
    driver.set_status(0);
    CHECK_FALSE(machine.board.line.level);
    CHECK(driver.isr() == 0);
}

TEST_CASE("an interrupt of a device that is just starting is not lost", "[virtio]") {
    Machine machine;
    fake::VirtioDriver driver{machine.board, 3};
    REQUIRE(driver.negotiate(kRing));
    machine.device.interrupts_at_start = true;
    driver.driver_ok();
    CHECK(machine.board.line.level);
    CHECK(driver.isr() == 1);
}

TEST_CASE("that the rings were broken is not said after their reset", "[virtio]") {
    Machine machine;
    fake::VirtioDriver driver{machine.board, 3};
    driver.start(kRing);
    machine.device.transport().needs_reset();
    CHECK((driver.status() & DEVICE_NEEDS_RESET) != 0);
    driver.set_status(0);
    machine.device.transport().needs_reset();
    CHECK(driver.status() == 0);
}

TEST_CASE("vectors beyond the table read back as none and stay silent", "[virtio]") {
    Machine machine;
    fake::VirtioDriver driver{machine.board, 3};
    driver.start(kRing);
    driver.set_common(22, 2, 0);
    driver.set_common(26, 2, 3);
    CHECK(driver.common(26, 2) == 0xffff);
    machine.device.transport().queue_interrupt(0);
    CHECK(machine.board.interrupts.messages.empty());
    CHECK_FALSE(machine.board.line.level);
    driver.set_common(16, 2, 0xffff);
    machine.device.transport().config_changed();
    CHECK(machine.board.interrupts.messages.empty());
}

TEST_CASE("a reset ends once the device is drained", "[virtio]") {
    Machine machine;
    fake::VirtioDriver driver{machine.board, 3};
    driver.start(kRing);
    machine.device.is_drained = false;
    driver.set_status(0);
    CHECK_FALSE(machine.device.running);
    CHECK(driver.status() != 0);
    machine.device.is_drained = true;
    CHECK(driver.status() == 0);
    CHECK(driver.common(8, 4) == 0);
    driver.start(kRing);
    CHECK(machine.device.running);
    machine.transport.reset();
    CHECK_FALSE(machine.device.running);
    CHECK(driver.status() == 0);
}

TEST_CASE("the device's registers are reached through configuration space", "[virtio]") {
    Machine machine;
    fake::VirtioDriver driver{machine.board, 3};
    const auto access = [&](std::uint32_t offset, std::uint32_t length) {
        driver.write_config(driver.window_ + 4, 1, 0);
        driver.write_config(driver.window_ + 8, 4, offset);
        driver.write_config(driver.window_ + 12, 4, length);
    };
    access(VirtioPciTransport::kDeviceOffset + 2, 2);
    CHECK(driver.read_config(driver.window_ + 16, 2) == 0x0403);
    access(VirtioPciTransport::kDeviceOffset, 1);
    driver.write_config(driver.window_ + 16, 4, 0xaabb'ccdd);
    CHECK(machine.device.config[0] == 0xdd);
    CHECK(machine.device.config[1] == 2);
    access(20, 1);
    driver.write_config(driver.window_ + 16, 1, ACKNOWLEDGE);
    CHECK(driver.status() == ACKNOWLEDGE);
    access(~3u, 4);
    (void)driver.read_config(driver.window_ + 16, 4);
    access(1, 4);
    (void)driver.read_config(driver.window_ + 16, 4);
    driver.write_config(driver.window_ + 4, 1, 7);
    (void)driver.read_config(driver.window_ + 16, 4);
    driver.write_config(driver.window_ + 16, 4, 0);
}

TEST_CASE("the device's configuration is read and written through its window", "[virtio]") {
    Machine machine;
    fake::VirtioDriver driver{machine.board, 3};
    CHECK(driver.device_config(0, 4) == 0x0403'0201);
    CHECK(driver.device_config(4, 4) == 0x0605);
    CHECK(driver.device_config(0xffc, 4) == 0);
}

TEST_CASE("accesses of any size anywhere in the BARs do no harm", "[virtio]") {
    Machine machine;
    std::mt19937_64 random{11};
    for (unsigned round = 0; round < 200; ++round) {
        fake::VirtioDriver driver{machine.board, 3};
        const std::uint64_t base = driver.bar(0);
        const std::uint64_t table = driver.bar(1);
        if (round % 2 == 0)
            driver.start(kRing, 16);
        for (unsigned i = 0; i < 400; ++i) {
            const std::uint64_t offset =
                random() % 2 == 0 ? random() % 64 : random() % VirtioPciTransport::kBarSize;
            const unsigned size = 1u << (random() % 4);
            const std::uint64_t value = random() % 3 == 0 ? random() : random() % 16;
            machine.board.memory_bus.write(base + offset, size, value);
            (void)machine.board.memory_bus.read(base + offset, size);
            machine.board.memory_bus.write(table + random() % MsixTable::kSize, size, value);
            driver.write_config(random() % 256, 1u << (random() % 3), random());
        }
        driver.write_config(pci::kBar0, 4, base);
        driver.write_config(pci::kBar0 + 4, 4, table);
    }
    fake::VirtioDriver driver{machine.board, 3};
    driver.start(kRing, 16);
    driver.queues.at(0).add({{Gpa{0x4000}, 1, true}});
    driver.kick(0);
    CHECK(driver.queues.at(0).take_used());
}

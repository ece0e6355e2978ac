// SPDX-License-Identifier: MIT
// A virtio disk with its driver, whose requests tests answer.
#pragma once

#include "catch.hpp"
#include "drivers/block/virtio_blk_driver.hpp"
#include "fakes/arena_frames.hpp"
#include "fakes/step_clock.hpp"
#include "fakes/virtio_pci_device.hpp"
#include "vmm/storage/disk_fixture.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <deque>
#include <memory>
#include <optional>
#include <random>
#include <utility>
#include <vector>

namespace hv::test {

using namespace hv::block;
using namespace hv::virtio;
using Operation = BlockRequest::Operation;

inline constexpr std::uint64_t kSectors = 8192;
inline constexpr std::uint64_t kRings = VIRTIO_F_VERSION_1 | VIRTIO_F_INDIRECT_DESC | VIRTIO_F_EVENT_IDX;
inline constexpr std::uint64_t kAll = kRings | VIRTIO_BLK_F_SIZE_MAX | VIRTIO_BLK_F_SEG_MAX |
                                      VIRTIO_BLK_F_BLK_SIZE | VIRTIO_BLK_F_FLUSH | VIRTIO_BLK_F_MQ |
                                      VIRTIO_BLK_F_DISCARD | VIRTIO_BLK_F_WRITE_ZEROES;

inline BlkConfig usual_config() {
    BlkConfig config{};
    config.capacity = kSectors;
    config.size_max = 64 * 1024;
    config.seg_max = 16;
    config.blk_size = 512;
    config.num_queues = 4;
    config.max_discard_sectors = 1000;
    config.max_discard_seg = 1;
    config.max_write_zeroes_sectors = 500;
    config.max_write_zeroes_seg = 1;
    return config;
}

/// A disk behind a virtio device, whose requests stay until the test answers them.
struct VirtioDisk {
    explicit VirtioDisk(std::uint64_t features = kAll, const BlkConfig& config = usual_config(),
                        std::vector<std::uint16_t> queues = {256, 64, 64, 64})
        : device{{.type = VIRTIO_ID_BLOCK,
                  .features = features,
                  .queue_sizes = std::move(queues),
                  .config = {reinterpret_cast<const std::byte*>(&config),
                             reinterpret_cast<const std::byte*>(&config + 1)}}} {
        device.on_read = [this](std::size_t) { clock.skip(clock.hz() / 1000); };
        device.on_notify = [this](unsigned queue) {
            while (auto chain = device.pop(queue))
                waiting.push_back({queue, std::move(*chain)});
            if (!waiting.empty() && header(waiting.back()).type == VIRTIO_BLK_T_GET_ID)
                answer(waiting.size() - 1);
        };
    }
    struct Waiting {
        unsigned queue;
        fake::VirtioPciDevice::Chain chain;
    };
    static BlkHeader header(const Waiting& request) { return request.chain.read<BlkHeader>(); }
    std::uint8_t carry_out(const Waiting& request) {
        const auto [type, reserved, sector] = header(request);
        REQUIRE(request.chain.readable[0].size() == sizeof(BlkHeader));
        const std::size_t room = request.chain.writable_size() - 1;
        const auto in = request.chain.bytes();
        switch (type) {
        case VIRTIO_BLK_T_IN:
            request.chain.write(0, std::span{sectors}.subspan(sector * 512, room));
            return VIRTIO_BLK_S_OK;
        case VIRTIO_BLK_T_OUT:
            REQUIRE(sector * 512 + in.size() - 16 <= sectors.size());
            std::copy(in.begin() + 16, in.end(), sectors.begin() + static_cast<long>(sector * 512));
            return VIRTIO_BLK_S_OK;
        case VIRTIO_BLK_T_DISCARD:
        case VIRTIO_BLK_T_WRITE_ZEROES: {
            const auto range = request.chain.read<BlkRange>(16);
            REQUIRE(in.size() == 32);
            REQUIRE(sector == 0);
            REQUIRE(range.flags <= VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP);
            unmapped = range.flags != 0;
            std::fill_n(sectors.begin() + static_cast<long>(range.sector * 512), range.num_sectors * 512ULL,
                        std::byte{0});
            largest_range = std::max(largest_range, range.num_sectors);
            return VIRTIO_BLK_S_OK;
        }
        case VIRTIO_BLK_T_GET_ID:
            REQUIRE(room == kBlkIdSize);
            request.chain.write(0, std::as_bytes(std::span{id}));
            return id_status;
        default: return VIRTIO_BLK_S_OK;
        }
    }
    void answer(std::size_t index, std::optional<std::uint8_t> other_status = {}) {
        const Waiting request = std::move(waiting[index]);
        waiting.erase(waiting.begin() + static_cast<long>(index));
        if (silent)
            return;
        const std::uint8_t status = other_status ? *other_status : carry_out(request);
        request.chain.write(request.chain.writable_size() - 1, std::as_bytes(std::span{&status, 1}));
        device.push(request.queue, request.chain.head,
                    static_cast<std::uint32_t>(request.chain.writable_size()));
    }
    auto create(unsigned max_queues = 2, unsigned vectors = 2) {
        return VirtioBlkDriver::create(device.transport(), pool, clock, {"vd0", max_queues, vectors});
    }

    fake::ArenaFrames frames;
    DmaPool pool{frames};
    fake::StepClock clock;
    fake::VirtioPciDevice device;
    std::vector<std::byte> sectors = std::vector<std::byte>(kSectors * 512);
    std::deque<Waiting> waiting;
    std::array<char, kBlkIdSize> id{'A', 'B', ' ', '1', '\n', '\0', 'x'};
    std::uint8_t id_status{VIRTIO_BLK_S_OK};
    std::uint32_t largest_range{0};
    bool unmapped{false};  ///< said the last range
    bool silent{false};
};

/// With an engine above it.
struct VirtioDiskBench : VirtioDisk {
    explicit VirtioDiskBench(std::uint64_t features = kAll, const BlkConfig& config = usual_config())
        : VirtioDisk{features, config}, driver{std::move(*create())} {
        engine = std::move(
            *CommandEngine::create(*driver, clock, pool, {"vd0", driver->channels(), driver->slots()}));
        disk = *engine->add_disk(driver->disk());
    }
    ~VirtioDiskBench() { fake::set_cpu(0); }
    void finish_all() {
        while (!waiting.empty()) {
            answer(random() % waiting.size());
            engine->service();
        }
    }
    void run(Request& request) {
        request.run(*disk);
        finish_all();
    }

    std::unique_ptr<VirtioBlkDriver> driver;
    std::unique_ptr<CommandEngine> engine;
    HardwareDisk* disk{};
    std::mt19937 random{3};
};

}  // namespace hv::test

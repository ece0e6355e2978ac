// SPDX-License-Identifier: MIT
// Requests to block devices as tests make them: scattered over segments of odd sizes, waited for or not.
#pragma once

#include "drivers/block/block_device.hpp"

#include <algorithm>
#include <cstring>
#include <functional>
#include <optional>
#include <random>
#include <vector>

namespace hv::test {

struct Request {
    Request(BlockRequest::Operation operation, std::uint64_t sector, std::uint64_t count,
            std::vector<std::byte> contents = {})
        : bytes{std::move(contents)} {
        request.operation = operation;
        request.sector = sector;
        request.sector_count = count;
        request.context = this;
        request.complete = [](BlockRequest& done, BlockStatus result) {
            auto& self = *static_cast<Request*>(done.context);
            if (self.status)
                std::abort();  // completed twice
            self.status = result;
        };
        if (operation == BlockRequest::Operation::read)
            bytes.resize(count * kSectorSize, std::byte{0xcc});
    }
    /// Splits the data into segments of up to `largest` bytes.
    Request& scatter(std::mt19937& random, std::uint32_t largest) {
        for (std::size_t at = 0; at < bytes.size();) {
            const std::size_t size = std::min<std::size_t>(bytes.size() - at, random() % largest + 1);
            segments.push_back({bytes.data() + at, static_cast<std::uint32_t>(size)});
            at += size;
        }
        return *this;
    }
    BlockStatus run(BlockDevice& disk) {
        if (segments.empty() && !bytes.empty())
            segments.push_back({bytes.data(), static_cast<std::uint32_t>(bytes.size())});
        request.segments = segments;
        disk.submit(request);
        return status.value_or(BlockStatus::unsupported);
    }

    std::vector<std::byte> bytes;
    std::vector<BlockSegment> segments;
    BlockRequest request{};
    std::optional<BlockStatus> status;
};

/// A disk of known contents that completes at once, later, or with an error.
class TestDisk final : public BlockDevice {
public:
    explicit TestDisk(std::uint64_t sectors) : contents(sectors * kSectorSize) {
        std::mt19937 random{42};
        for (std::byte& byte : contents)
            byte = std::byte(random() & 0xff);
    }
    [[nodiscard]] BlockGeometry geometry() const override {
        return {contents.size() / kSectorSize, block_size, true, false};
    }
    void submit(BlockRequest& request) override {
        ++submitted;
        if (on_submit)
            on_submit();
        if (deferred)
            waiting.push_back(&request);
        else
            finish(request);
    }
    void finish(BlockRequest& request) {
        const std::byte* from = contents.data() + request.sector * kSectorSize;
        std::uint64_t total = 0;
        for (const BlockSegment& segment : request.segments) {
            std::memcpy(segment.data, from + total, segment.size);
            total += segment.size;
        }
        if (total != request.sector_count * kSectorSize)
            std::abort();
        request.complete(request, answer);
    }
    bool finish_one() {
        if (waiting.empty())
            return false;
        BlockRequest* request = waiting.front();
        waiting.erase(waiting.begin());
        finish(*request);
        return true;
    }

    std::vector<std::byte> contents;
    std::vector<BlockRequest*> waiting;
    std::function<void()> on_submit;
    std::uint32_t block_size{kSectorSize};
    BlockStatus answer{BlockStatus::ok};
    bool deferred{false};
    unsigned submitted{0};
};

inline std::vector<std::byte> random_bytes(std::mt19937& random, std::size_t size) {
    std::vector<std::byte> bytes(size);
    for (std::byte& byte : bytes)
        byte = std::byte(random() & 0xff);
    return bytes;
}

}  // namespace hv::test

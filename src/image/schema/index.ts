/** Every message of CRIU's image format, by CRIU's own names. */
export * from './generated/cgroup_pb.js';
export * from './generated/core_pb.js';
export * from './generated/core-aarch64_pb.js';
export * from './generated/core-x86_pb.js';
export * from './generated/file-common_pb.js';
export * from './generated/file-event_pb.js';
export * from './generated/file-regular_pb.js';
export * from './generated/file-stream_pb.js';
export * from './generated/files_pb.js';
export * from './generated/inventory_pb.js';
export * from './generated/ipc_pb.js';
export * from './generated/memory_pb.js';
export * from './generated/namespace_pb.js';
export * from './generated/network_pb.js';
export * from './generated/socket_pb.js';
